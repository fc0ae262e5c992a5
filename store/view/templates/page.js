// Connects the parts of an image's page: its map, its crop, the target of that crop as bars.
"use strict";

const SHOWN_BARS = 6;
const FLAT = 0.1; // bars of a target whose largest class has less are drawn longer, to be visible

function readMap() {
  const map = JSON.parse(byId("data").textContent);
  const at = new Map(map.ids.map((id, i) => [id, i]));
  map.index = map.classes.map((id) => at.get(id));
  // A tail of minus infinity, where every class is kept, has no number in JSON.
  map.tail = map.tail && map.tail.map((value) => (value === null ? -Infinity : value));
  return map;
}

function chosen(name) {
  return document.querySelector(`input[name=${name}]:checked`).value;
}

// The chosen temperature; 1 while the field, which then says so, holds no number above 0.
function temperature() {
  const field = byId("temperature");
  const isValid = field.valueAsNumber > 0;
  field.setCustomValidity(isValid ? "" : "a number above 0; the target is shown for 1");
  if (!isValid) field.reportValidity();
  return isValid ? field.valueAsNumber : 1;
}

function barScale(largest) {
  return largest < FLAT ? 1 / largest : 1;
}

function bar(map, at, probability, scale) {
  const item = element("li", undefined, { "data-class": map.ids[at] });
  const fill = element("span", undefined, { class: "fill" });
  fill.style.width = `${100 * scale * probability}%`;
  fill.style.background = (map.marks[at] || map.otherMark).colour;
  const track = element("span", undefined, { class: "track", "aria-hidden": "true" });
  track.append(fill);
  item.append(classTag(map, at), track, element("span", probability.toFixed(4), { class: "number" }));
  return item;
}

// The largest classes first, then the label if it is not among them.
function showTarget(map, box) {
  byId("box-text").textContent = box.map((side) => side.toFixed(3)).join(", ");
  byId("frame").classList.toggle("unused", chosen("kind").startsWith("global") || chosen("kind") === "original");
  const target = cropTarget(map, box, chosen("kind"), temperature());
  if (target === null) {
    byId("bars").replaceChildren();
    byId("rest").textContent = "the label map covers no part of this crop";
    return;
  }
  const { probabilities, other } = target;
  const order = map.ids.map((_, at) => at).sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  const shown = order.slice(0, SHOWN_BARS);
  const label = map.ids.indexOf(map.label);
  if (label >= 0 && !shown.includes(label)) shown.push(label);
  const scale = barScale(probabilities[order[0]]);
  byId("bars").replaceChildren(...shown.map((at) => bar(map, at, probabilities[at], scale)));
  const rest = 1 - shown.reduce((sum, at) => sum + probabilities[at], 0);
  const longer = scale > 1 ? `; bars ${scale.toFixed(0)} times as long as elsewhere` : "";
  byId("rest").textContent = `${map.count - shown.length} other classes together ${Math.max(rest, 0).toFixed(4)}${longer}`;
  byId("rest").dataset.other = other;
}

function showLegend(map) {
  const items = map.legend.map(([at, cells]) => {
    const item = element("li");
    item.append(classTag(map, at), element("span", `${cells} cells`, { class: "number" }));
    return item;
  });
  const item = element("li");
  const letter = element("span", map.otherMark.letter, { class: "letter", "aria-hidden": "true" });
  letter.style.background = map.otherMark.colour;
  letter.style.color = map.otherMark.ink;
  item.append(letter, element("span", "any other class"),
    element("span", `${map.unmarked.cells} cells`, { class: "number" }));
  items.push(item);
  byId("legend").replaceChildren(...items);
}

function listenToStage(map, stage, crop) {
  const cellAt = (event) => {
    const [x1, y1, x2, y2] = map.region;
    const [left, top] = crop.position(event);
    const [x, y] = [(left - x1) / (x2 - x1), (top - y1) / (y2 - y1)];
    if (x < 0 || y < 0 || x >= 1 || y >= 1) return;
    showCell(map, Math.floor(y * map.height), Math.floor(x * map.width));
  };
  stage.addEventListener("pointermove", (event) => event.buttons || cellAt(event));
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    cellAt(event);
    crop.draw(event);
  });
}

function start() {
  const map = readMap();
  const stage = byId("stage");
  const ratio = Math.min(Math.max(map.image.width / map.image.height, 1 / 8), 8); // a narrower image would be a line
  stage.style.aspectRatio = ratio;
  stage.style.maxWidth = `min(100%, ${80 * ratio}vh)`;
  for (const layer of [byId("colours"), byId("grid")]) placeAt(layer, map.region);
  drawColours(map, byId("colours"));
  makeGrid(map, byId("grid"), (y, x) => showCell(map, y, x));
  showLegend(map);
  showCell(map, 0, 0);
  const crop = new Crop(stage, map.box, (box) => showTarget(map, box));
  listenToStage(map, stage, crop);
  byId("whole").addEventListener("click", () => crop.set([0, 0, 1, 1]));
  for (const input of document.querySelectorAll("input[type=radio], #temperature")) {
    input.addEventListener("input", () => showTarget(map, crop.box));
  }
  const opacity = byId("opacity");
  const fade = () => {
    byId("colours").style.opacity = opacity.value / 100;
    byId("grid").classList.toggle("hidden", opacity.value === "0");
  };
  opacity.addEventListener("input", fade);
  fade();
}

// n and p go to the next and the previous sample, where the page is one of many.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input[type=search], input[type=text]")) return;
  const link = { n: "next", p: "previous" }[event.key];
  const target = link && document.querySelector(`a[rel=${link === "next" ? "next" : "prev"}]`);
  if (target) target.click();
});

if (byId("data")) start();
