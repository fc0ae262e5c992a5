// The crop: a box with three handles. Its corners are normalised by the image and rounded to thousandths, so that the
// corners shown are exactly those computed with.
"use strict";

const LEAST = 0.01; // of a side, as a share of the image

function rounded(value) {
  return Math.round(Math.min(Math.max(value, 0), 1) * 1000) / 1000;
}

// Corners in order, inside the image, with an area.
function tidyBox(x1, y1, x2, y2) {
  const [left, right] = tidySide(x1, x2);
  const [top, bottom] = tidySide(y1, y2);
  return [left, top, right, bottom];
}

function tidySide(a, b) {
  let [low, high] = [rounded(Math.min(a, b)), rounded(Math.max(a, b))];
  if (high - low < LEAST) {
    high = rounded(low + LEAST);
    low = rounded(high - LEAST);
  }
  return [low, high];
}

function moved(box, handle, dx, dy) {
  const [x1, y1, x2, y2] = box;
  if (handle === "from") {
    return [rounded(Math.min(x1 + dx, x2 - LEAST)), rounded(Math.min(y1 + dy, y2 - LEAST)), x2, y2];
  }
  if (handle === "to") {
    return [x1, y1, rounded(Math.max(x2 + dx, x1 + LEAST)), rounded(Math.max(y2 + dy, y1 + LEAST))];
  }
  const stepX = Math.min(Math.max(dx, -x1), 1 - x2);
  const stepY = Math.min(Math.max(dy, -y1), 1 - y2);
  return [rounded(x1 + stepX), rounded(y1 + stepY), rounded(x2 + stepX), rounded(y2 + stepY)];
}

// Puts a part of the stage at a box of the image.
function placeAt(part, box) {
  const [x1, y1, x2, y2] = box;
  part.style.left = `${100 * x1}%`;
  part.style.top = `${100 * y1}%`;
  part.style.width = `${100 * (x2 - x1)}%`;
  part.style.height = `${100 * (y2 - y1)}%`;
}

class Crop {
  constructor(stage, box, onChange) {
    this.stage = stage;
    this.onChange = onChange;
    this.frame = byId("frame");
    this.set(box);
    for (const handle of stage.querySelectorAll(".handle")) this.listen(handle);
  }

  set(box) {
    this.box = box;
    placeAt(this.frame, box);
    this.onChange(box);
  }

  position(event) {
    const area = this.stage.getBoundingClientRect();
    return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
  }

  listen(handle) {
    const name = handle.dataset.handle;
    handle.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.1 : 0.01;
      const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own
      event.preventDefault();
      this.set(moved(this.box, name, ...steps[event.key]));
    });
    handle.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      const [start, box] = [this.position(event), this.box];
      this.follow(handle, event, (x, y) => this.set(moved(box, name, x - start[0], y - start[1])));
    });
  }

  // A new box from where the pointer went down, once it has moved far enough to be no click.
  draw(event) {
    const start = this.position(event);
    const [downX, downY] = [event.clientX, event.clientY];
    let drawing = false;
    this.follow(this.stage, event, (x, y, now) => {
      drawing ||= Math.hypot(now.clientX - downX, now.clientY - downY) > 4;
      if (drawing) this.set(tidyBox(start[0], start[1], x, y));
    });
  }

  follow(target, down, onMove) {
    target.setPointerCapture(down.pointerId);
    const move = (event) => event.pointerId === down.pointerId && onMove(...this.position(event), event);
    const stop = (event) => {
      if (event.pointerId !== down.pointerId) return;
      for (const name of ["pointerup", "pointercancel"]) target.removeEventListener(name, stop);
      target.removeEventListener("pointermove", move);
    };
    target.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) target.addEventListener(name, stop);
  }
}
