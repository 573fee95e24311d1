// What can be asked for, read from /models, and what is chosen.

import { fetchModels } from "./api.js";

const $ = (id) => document.getElementById(id);

let models = [];

/** Fill the choices, keeping what was chosen before where it still is one. */
export async function readChoices() {
  const catalog = await fetchModels();
  models = catalog.models;
  fill($("model"), models.map(({ name, default: first }) => [name, name, first]));
  $("model-field").hidden = models.length < 2;
  fill($("detector"), catalog.detectors.map(({ name, default: first }) => [
    name, name === "whole" ? "whole photo, one person" : name, first,
  ]));
  showHeads();
  $("choices").hidden = false;
}

export function skeletonOf(model) {
  return models.find(({ name }) => name === model)?.skeleton ?? [];
}

/** The query of POST /pose. Each decode has a lattice of its own, named only where one is chosen. */
export function poseParameters() {
  const parameters = {};
  if ($("model").value) parameters.model = $("model").value;
  if (chosenHead()) {
    parameters.head = chosenHead().name;
    parameters.decode = $("decode").value;
    const lattice = parameters.head === "nerpe" && $("lattice").value;
    if (lattice) parameters.resolution = lattice;
  }
  if ($("detector").value) parameters.detector = $("detector").value;
  if ($("flip").checked) parameters.flip = true;
  return parameters;
}

/** Call `changed` when another answer is asked for. */
export function whenChanged(changed) {
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("model").addEventListener("change", () => { showHeads(); changed(); });
  $("heads").addEventListener("change", () => { showDecodes(); changed(); });
  for (const id of ["decode", "lattice", "detector", "flip"]) $(id).addEventListener("change", changed);
}

const chosenModel = () => models.find(({ name }) => name === $("model").value);
const chosenHead = () =>
  chosenModel()?.heads.find(({ name }) => name === $("heads").querySelector(":checked")?.value);

function showHeads() {
  const before = chosenHead()?.name;
  const model = chosenModel();
  const chosen = model.heads.some(({ name }) => name === before) ? before : model.default_head;
  $("heads").replaceChildren(...model.heads.map(({ name }) => {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "head", value: name, checked: name === chosen });
    label.append(input, name);
    return label;
  }));
  showDecodes();
}

function showDecodes() {
  const { name, decodes } = chosenHead();
  fill($("decode"), decodes.map((decode, n) => [decode, decode, n === 0]));
  $("lattice-field").hidden = name !== "nerpe";
}

/** options: [[value, label, chosen by default], ...] */
function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, label, chosen]) => new Option(label, value, chosen, chosen)));
  if (options.some(([value]) => String(value) === before)) select.value = before;
}
