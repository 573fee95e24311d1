// The page: what is asked for, what came back, what is pointed at.

import { fetchHeatmap, fetchPose, useKey } from "./api.js";
import { listPeople, markPeople, showPerson } from "./people.js";
import { poseParameters, readChoices, skeletonOf, whenChanged } from "./settings.js";
import { jointAt, paint, shownPeople } from "./stage.js";

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const HEATMAPS = 64; // pictures kept to be shown again at once

let file = null; // the photo as posted
let photo = null; // the photo as pixels
let known = null; // that the choices are read, a promise
let answer = null;
let pointed = null; // {person, keypoint} under the pointer or the focus
let pinned = null;
let heatmap = null;
let asked = new AbortController(); // the POST in flight
let wanted = new AbortController(); // the heatmap in flight
const heatmaps = new Map();

// A photo comes in

async function open(blob, { sample = false } = {}) {
  if (!blob) return;
  let pixels;
  try {
    pixels = await createImageBitmap(blob);
  } catch {
    showProblem({ title: "This is no photo.", message: "JPEG, PNG and WebP can be read." });
    return;
  }
  [file, photo, answer] = [blob, pixels, null];
  $("welcome").hidden = true;
  $("stage").classList.remove("empty");
  canvas.hidden = false;
  $("actions").hidden = false;
  $("credit").hidden = !sample;
  listPeople($("people"), [], {});
  forgetHeatmaps();
  fit();
  await run();
}

async function openSample() {
  const response = await fetch("page/sample.jpg");
  await open(await response.blob(), { sample: true });
}

// Its poses

/** The choices are read once; where that failed, the next use tries again. */
function choices() {
  known ??= readChoices().catch((problem) => {
    known = null;
    throw problem;
  });
  return known;
}

async function run() {
  if (!file) return;
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  $("busy").hidden = false;
  try {
    await choices();
    const found = await fetchPose(file, poseParameters(), signal);
    if (signal.aborted) return;
    answer = found;
    showProblem(null);
    forgetHeatmaps();
    listPeople($("people"), answer.people, { point, pin });
    summarise();
    select();
  } catch (problem) {
    if (problem.name === "AbortError") return;
    showProblem(problem);
  } finally {
    if (!signal.aborted) $("busy").hidden = true;
  }
}

function summarise() {
  const { model, engine, detector, head, decode, resolution, timings_ms: ms } = answer;
  const how = [head, decode, resolution].filter(Boolean).join(" ");
  const parts = Object.entries(ms).filter(([name]) => name !== "total");
  $("timings").textContent = [
    `${model} on ${engine}`, how, detector ? `people by ${detector}` : "boxes given",
    parts.map(([name, value]) => `${name.replaceAll("_", " ")} ${value.toFixed(1)}`).join(", ") + " ms",
  ].join(" · ");
  count();
}

/** Say how many people the photo shows now; the list has the others too. */
function count() {
  if (!answer) return;
  const shown = shownPeople(answer.people, minScore()).length;
  const hidden = answer.people.length - shown;
  const found = shown === 1 ? "1 person" : `${shown || "No"} people`;
  $("summary").textContent =
    `${found} in ${answer.timings_ms.total.toFixed(0)} ms` + (hidden ? `; ${hidden} more not drawn` : "");
  canvas.setAttribute("aria-label", `The photo with ${found}; their joints are listed under People`);
}

function showProblem(problem) {
  $("problem").hidden = !problem;
  $("problem-title").textContent = problem?.title ?? "";
  $("problem-detail").textContent = problem?.message ?? "";
  $("key-form").hidden = problem?.status !== 401;
}

// A joint is pointed at

const active = () => pointed ?? pinned;

function point(selection) {
  if (pointed?.person === selection?.person && pointed?.keypoint === selection?.keypoint) return;
  pointed = selection;
  select();
}

function pin(selection) {
  const same = pinned?.person === selection?.person && pinned?.keypoint === selection?.keypoint;
  pinned = same ? null : selection;
  if (pinned) showPerson($("people"), pinned.person);
  select();
}

/** Show what is active now, and fetch its heatmap once the pointer rests. */
function select() {
  wanted.abort();
  wanted = new AbortController();
  const { signal } = wanted;
  const selection = active();
  const parameters = selection && answer && heatmapParameters(selection);
  const key = JSON.stringify(parameters);
  heatmap = heatmaps.get(key) ?? null;
  repaint();
  if (!parameters || heatmap) return;
  setTimeout(async () => {
    if (signal.aborted) return;
    try {
      const drawn = await fetchHeatmap(parameters, signal);
      heatmaps.set(key, drawn);
      if (heatmaps.size > HEATMAPS) heatmaps.delete(heatmaps.keys().next().value);
      if (signal.aborted) return;
      heatmap = drawn;
      repaint();
    } catch (problem) {
      if (problem.name !== "AbortError") showProblem(problem);
    }
  }, 70);
}

function heatmapParameters({ person, keypoint }) {
  return {
    id: answer.id, person, keypoint, head: answer.head, resolution: $("samples").value,
    frame: "crop", format: "png", colormap: $("colormap").value, alpha: true,
  };
}

function forgetHeatmaps() {
  heatmaps.clear();
  [pointed, heatmap] = [null, null];
  const kept = answer?.people.some(({ person, keypoints }) => person === pinned?.person && keypoints);
  if (!kept) pinned = null;
}

// Painting

const minScore = () => Number($("min-score").value);

function view(selection) {
  return {
    photo, heatmap, minScore: minScore(), active: selection, people: answer?.people ?? [],
    skeleton: skeletonOf(answer?.model),
  };
}

function repaint() {
  if (!photo) return;
  paint(canvas, view(active()), canvas.width / photo.width);
  markPeople($("people"), { active: active(), pinned, minScore: minScore() });
}

/** As large as the column and most of the window allow, in whole pixels of the screen. */
function fit() {
  if (!photo) return;
  const width = $("stage").clientWidth;
  const height = Math.max(240, innerHeight * 0.78);
  const scale = Math.min(width / photo.width, height / photo.height);
  canvas.style.width = `${photo.width * scale}px`;
  canvas.width = Math.round(photo.width * scale * devicePixelRatio);
  canvas.height = Math.round(photo.height * scale * devicePixelRatio);
  repaint();
}

function jointUnder(event) {
  const bounds = canvas.getBoundingClientRect();
  const perPixel = photo.width / bounds.width;
  const x = (event.clientX - bounds.left) * perPixel - 0.5;
  const y = (event.clientY - bounds.top) * perPixel - 0.5;
  return jointAt(answer?.people ?? [], minScore(), x, y, canvas.width / photo.width);
}

// What one takes away

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function savePng() {
  const full = document.createElement("canvas");
  [full.width, full.height] = [photo.width, photo.height];
  heatmap = pinned ? heatmap : null;
  paint(full, view(null), 1);
  full.toBlob((blob) => save(blob, "poses.png"), "image/png");
}

async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser forbids it";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
}

const json = () => JSON.stringify(answer, null, 1);

function curl() {
  const url = new URL(`pose?${new URLSearchParams(poseParameters())}`, location.href);
  const name = (file.name ?? "sample.jpg").replaceAll("'", "'\\''");
  return `curl --data-binary '@${name}' '${url}'`;
}

// Wiring

document.querySelectorAll(".choose").forEach((button) =>
  button.addEventListener("click", () => $("file").click()));
document.querySelector(".sample").addEventListener("click", openSample);
$("file").addEventListener("change", ({ target }) => { open(target.files[0]); target.value = ""; });
addEventListener("paste", (event) => open([...event.clipboardData.files][0]));
addEventListener("dragover", (event) => { event.preventDefault(); $("stage").classList.add("over"); });
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("stage").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  open(event.dataTransfer.files[0]);
});

canvas.addEventListener("pointermove", (event) => {
  const joint = jointUnder(event);
  canvas.classList.toggle("pointing", Boolean(joint));
  point(joint);
});
canvas.addEventListener("pointerleave", () => point(null));
canvas.addEventListener("click", (event) => pin(jointUnder(event)));
addEventListener("keydown", ({ key }) => { if (key === "Escape") { pinned = null; point(null); select(); } });
addEventListener("resize", fit);

$("min-score").addEventListener("input", () => {
  $("min-score-value").textContent = minScore().toFixed(2);
  count();
  repaint();
});
for (const id of ["samples", "colormap"]) $(id).addEventListener("change", select);
whenChanged(run);

$("again").addEventListener("click", run);
$("save-png").addEventListener("click", savePng);
$("save-json").addEventListener("click", () =>
  save(new Blob([json()], { type: "application/json" }), "poses.json"));
$("copy-json").addEventListener("click", ({ target }) => copy(json(), target));
$("copy-curl").addEventListener("click", ({ target }) => copy(curl(), target));

$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey($("key").value);
  try {
    await choices();
    showProblem(null);
    await run();
  } catch (problem) {
    showProblem(problem);
  }
});

choices().catch(showProblem);
