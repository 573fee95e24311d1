// The list of people and their joints: what the photo shows, for keyboards and screen readers.

import { side, words } from "./stage.js";

const ARROWS = { ArrowDown: 1, ArrowUp: -1 };

/** Fill `list`. `point` is called with a selection or null, `pin` with a selection. */
export function listPeople(list, people, { point, pin }) {
  list.replaceChildren(...people.map((person) => personItem(person, { point, pin })));
  const first = list.querySelector("details");
  if (first) first.open = true;
}

function personItem(person, { point, pin }) {
  const item = document.createElement("details");
  item.dataset.person = person.person;
  const heading = document.createElement("summary");
  heading.append(
    element("b", `Person ${person.person}`),
    element("span", person.error ? "failed" : person.score.toFixed(2), "score"),
  );
  item.append(heading);
  if (person.error) {
    item.append(element("p", person.error.detail, "fine"));
    return item;
  }
  const joints = document.createElement("ul");
  person.keypoints.forEach((joint, index) => {
    const row = document.createElement("li");
    row.append(jointButton(person, joint, index, { point, pin }));
    joints.append(row);
  });
  // One stop of the Tab key for all joints; arrows move among them.
  joints.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...joints.querySelectorAll("button")];
    const next = buttons.indexOf(document.activeElement) + step;
    buttons[Math.max(0, Math.min(buttons.length - 1, next))].focus();
  });
  item.append(joints);
  return item;
}

function jointButton(person, joint, index, { point, pin }) {
  const button = document.createElement("button");
  const selection = { person: person.person, keypoint: joint.name };
  button.type = "button";
  button.tabIndex = index === 0 ? 0 : -1;
  button.className = `joint ${side(joint.name)}`;
  button.dataset.keypoint = joint.name;
  button.dataset.score = joint.score;
  button.setAttribute("aria-pressed", "false");
  button.append(
    element("span", words(joint.name)),
    element("span", `${joint.x.toFixed(1)}, ${joint.y.toFixed(1)}`, "at"),
    element("span", joint.score.toFixed(2), "score"),
  );
  button.addEventListener("pointerenter", () => point(selection));
  button.addEventListener("pointerleave", () => point(null));
  button.addEventListener("focus", () => {
    for (const other of button.closest("ul").querySelectorAll("button")) other.tabIndex = -1;
    button.tabIndex = 0;
    point(selection);
  });
  button.addEventListener("blur", () => point(null));
  button.addEventListener("click", () => pin(selection));
  return button;
}

/** Show which joint is pointed at, which is pinned, and which score too low to be drawn. */
export function markPeople(list, { active, pinned, minScore }) {
  for (const button of list.querySelectorAll(".joint")) {
    const person = Number(button.closest("details").dataset.person);
    const is = (selection) =>
      selection?.person === person && selection.keypoint === button.dataset.keypoint;
    button.classList.toggle("active", is(active));
    button.classList.toggle("low", button.dataset.score < minScore);
    button.setAttribute("aria-pressed", String(is(pinned)));
  }
}

/** Unfold a person's joints. */
export function showPerson(list, person) {
  list.querySelector(`[data-person="${person}"]`).open = true;
}

function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}
