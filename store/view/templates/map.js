// The map over the image: a canvas of colours, and a grid of letters whose cells can be pointed at or moved through.
"use strict";

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text; // never as HTML: names are hostile
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function byId(id) {
  return document.getElementById(id);
}

// A class as it is shown everywhere: its letter on its colour, its name in short, and "label" where it is the label.
function classTag(map, at) {
  const tag = element("span", undefined, { class: "class", "data-class": map.ids[at], title: map.titles[at] });
  const mark = map.marks[at] || map.otherMark;
  const letter = element("span", mark.letter, { class: "letter", "aria-hidden": "true" });
  letter.style.background = mark.colour;
  letter.style.color = mark.ink;
  const name = element("span", undefined, { class: "name" });
  name.append(element("bdi", map.names[at]));
  if (map.ids[at] === map.label) name.append(element("span", "label", { class: "is-label" }));
  tag.append(letter, name);
  return tag;
}

// How strongly a cell's colour and letter are drawn, by the probability of its top-1 class.
function strength(probability) {
  return 0.4 + 0.6 * probability;
}

function drawColours(map, canvas) {
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d");
  for (let cell = 0; cell < map.height * map.width; cell++) {
    const first = cellClasses(map, cell)[0];
    context.fillStyle = (map.marks[first.at] || map.otherMark).colour;
    context.globalAlpha = strength(first.probability);
    context.fillRect(cell % map.width, Math.floor(cell / map.width), 1, 1);
  }
}

// Letters in a grid of which one cell at a time is in the tab order; arrow keys move.
function makeGrid(map, grid, onCell) {
  grid.style.gridTemplateColumns = `repeat(${map.width}, 1fr)`;
  const cells = [];
  for (let y = 0; y < map.height; y++) {
    const row = element("div", undefined, { role: "row" });
    for (let x = 0; x < map.width; x++) {
      const { at, probability } = cellClasses(map, y * map.width + x)[0];
      const letter = element("span", (map.marks[at] || map.otherMark).letter);
      letter.style.opacity = strength(probability);
      const cell = element("div", undefined, { role: "gridcell", tabindex: "-1", "data-cell": `${y},${x}` });
      cell.setAttribute("aria-label", `y ${y}, x ${x}: ${map.names[at]}, probability ${probability.toFixed(2)}`);
      cell.append(letter);
      cell.addEventListener("focus", () => onCell(y, x));
      cells.push(cell);
      row.append(cell);
    }
    grid.append(row);
  }
  cells[0].tabIndex = 0;
  grid.addEventListener("keydown", (event) => moveInGrid(map, cells, event));
  grid.addEventListener("focusin", (event) => {
    for (const cell of cells) cell.tabIndex = cell === event.target ? 0 : -1;
  });
}

function moveInGrid(map, cells, event) {
  const at = cells.indexOf(event.target);
  const [y, x] = [Math.floor(at / map.width), at % map.width];
  const last = map.width - 1;
  const moves = {
    ArrowUp: [y - 1, x], ArrowDown: [y + 1, x], ArrowLeft: [y, x - 1], ArrowRight: [y, x + 1], Home: [y, 0], End: [y, last],
  };
  if (at < 0 || !(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own
  event.preventDefault();
  const [toY, toX] = moves[event.key];
  if (toY >= 0 && toY < map.height && toX >= 0 && toX <= last) cells[toY * map.width + toX].focus();
}

function showCell(map, y, x) {
  byId("cell-name").textContent = `y ${y}, x ${x}`;
  const rows = cellClasses(map, y * map.width + x).slice(0, 5).map((entry) => {
    const row = element("tr", undefined, { "data-class": map.ids[entry.at] });
    const name = element("td");
    name.append(classTag(map, entry.at));
    row.append(name, element("td", entry.score.toFixed(4)), element("td", entry.probability.toFixed(4)));
    return row;
  });
  byId("cell-classes").replaceChildren(...rows);
}
