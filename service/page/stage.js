// The photo with what lies over it: heatmap, skeletons, the joint that is pointed at.
// Positions are pixels of the photo, centres at integers: pixel (0, 0) covers [-0.5, 0.5].

const SIDES = { left: "#56b4e9", right: "#e69f00", middle: "#f0f0f0" };
const OUTLINE = "#181818";
const REACH = 18; // how near, in CSS pixels, one points at a joint

/** One CSS pixel in pixels of the photo. */
const pixel = (scale) => devicePixelRatio / scale;

export function side(...names) {
  const sides = new Set(names.map((name) => name.split("_")[0]));
  const [only] = sides;
  return sides.size === 1 && only in SIDES ? only : "middle";
}

/** Paint on `canvas`, which shows the photo at `scale`.
 *  view: { photo, people, skeleton, minScore, heatmap, active: {person, keypoint} | null } */
export function paint(canvas, view, scale) {
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.drawImage(view.photo, 0, 0, canvas.width, canvas.height);
  context.setTransform(scale, 0, 0, scale, scale / 2, scale / 2);
  if (view.active || view.heatmap) {
    context.fillStyle = "rgb(0 0 0 / 35%)";
    context.fillRect(-0.5, -0.5, view.photo.width, view.photo.height);
  }
  if (view.heatmap) paintHeatmap(context, view.heatmap);
  const last = view.active?.person;
  view.people.forEach((_, n, all) => {
    const person = all[all.length - 1 - n]; // the best on top
    if (person.keypoints && person.person !== last) paintPerson(context, person, view, scale);
  });
  const pointed = view.people.find(({ person }) => person === last);
  if (pointed?.keypoints) {
    paintPerson(context, pointed, view, scale);
    paintBox(context, pointed.box, scale);
    const joint = pointed.keypoints.find(({ name }) => name === view.active.keypoint);
    if (joint) paintMark(context, joint, scale);
  }
}

function paintHeatmap(context, { bitmap, affine: [a, , c, , e, f] }) {
  context.imageSmoothingEnabled = true;
  context.globalAlpha = 0.85;
  context.drawImage(bitmap, c - a / 2, f - e / 2, a * bitmap.width, e * bitmap.height);
  context.globalAlpha = 1;
}

function paintPerson(context, { person, box, keypoints }, view, scale) {
  const width = Math.max(1.6 * pixel(scale), Math.sqrt(box.width * box.height) / 90);
  const rim = Math.max(0.8 * pixel(scale), width / 2);
  const shown = new Map(
    keypoints.filter(({ score }) => score >= view.minScore).map((joint) => [joint.name, joint]),
  );
  const limbs = view.skeleton.filter(([a, b]) => shown.has(a) && shown.has(b));
  // Over a heatmap the skeleton steps back: what lies under it matters now.
  context.globalAlpha = view.heatmap || view.active ? 0.5 : 1;
  context.lineCap = "round";
  for (const outline of [true, false]) {
    context.lineWidth = outline ? width + 2 * rim : width;
    for (const [a, b] of limbs) {
      context.strokeStyle = outline ? OUTLINE : SIDES[side(a, b)];
      context.beginPath();
      context.moveTo(shown.get(a).x, shown.get(a).y);
      context.lineTo(shown.get(b).x, shown.get(b).y);
      context.stroke();
    }
    for (const { name, x, y } of shown.values()) {
      if (view.active?.person === person && view.active.keypoint === name) continue; // marked
      context.fillStyle = outline ? OUTLINE : SIDES[side(name)];
      context.beginPath();
      context.arc(x, y, width * 1.4 + (outline ? rim : 0), 0, 2 * Math.PI);
      context.fill();
    }
  }
  context.globalAlpha = 1;
}

function paintBox(context, { x, y, width, height }, scale) {
  context.strokeStyle = "rgb(255 255 255 / 60%)";
  context.lineWidth = pixel(scale);
  context.strokeRect(x, y, width, height);
}

/** A ring with four ticks that point at the place and leave its heatmap to be seen. */
function paintMark(context, { name, x, y, score }, scale) {
  const px = pixel(scale);
  for (const [colour, width] of [[OUTLINE, 3 * px], ["#ffffff", 1.2 * px]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, 16 * px, 0, 2 * Math.PI);
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + dx * 12 * px, y + dy * 12 * px);
      context.lineTo(x + dx * 21 * px, y + dy * 21 * px);
    }
    context.stroke();
  }
  const text = `${words(name)}  ${score.toFixed(2)}`;
  context.font = `600 ${13 * px}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const length = context.measureText(text).width + 14 * px;
  const right = context.canvas.width / scale - 0.5;
  const left = x + 26 * px + length > right ? x - 26 * px - length : x + 26 * px;
  context.fillStyle = "rgb(17 22 28 / 85%)";
  context.beginPath();
  context.roundRect(left, y - 12 * px, length, 24 * px, 6 * px);
  context.fill();
  context.fillStyle = "#ffffff";
  context.fillText(text, left + 7 * px, y + px);
}

/** Those of whom any joint is shown. */
export function shownPeople(people, minScore) {
  return people.filter(({ keypoints }) => keypoints?.some(({ score }) => score >= minScore));
}

/** The shown joint nearest to a place of the photo, or null where none is near. */
export function jointAt(people, minScore, x, y, scale) {
  let best = null;
  let nearest = REACH * pixel(scale);
  for (const { person, keypoints } of people) {
    for (const joint of keypoints ?? []) {
      const distance = Math.hypot(joint.x - x, joint.y - y);
      if (joint.score >= minScore && distance < nearest) {
        nearest = distance;
        best = { person, keypoint: joint.name };
      }
    }
  }
  return best;
}

export function words(name) {
  return name.replaceAll("_", " ");
}
