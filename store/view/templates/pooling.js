// LabelPooling for one crop in float32, as store/maps/pooling.py computes it; a test compares the two.
// A map has height, width, topK, count (of all classes), ids (rising, every class that can show), index (of every kept
// class in ids; k, y, x), scores (k, y, x), tail (y, x) or null, label (a class id or -1), region (the part of the image
// that it covers: x1, y1, x2, y2).
"use strict";

const f32 = Math.fround;

// The weight of each cell along one axis in a box from low to high. RoIAlign's own order of operations, every step
// rounded to float32: another order flips `ceil` on boxes aligned to cells.
function axisWeights(low, high, cells) {
  const start = f32(f32(f32(low) * cells) - 0.5);
  const size = f32(f32(f32(f32(high) * cells) - 0.5) - start);
  const count = Math.max(Math.ceil(size), 1);
  const weights = new Float32Array(cells);
  for (let i = 0; i < count; i++) {
    const point = f32(start + f32(f32((i + 0.5) * size) / count));
    const inside = Math.min(Math.max(point, 0), cells - 1);
    for (let cell = 0; cell < cells; cell++) {
      weights[cell] += Math.max(0, f32(1 - Math.abs(f32(inside - cell))));
    }
  }
  return weights.map((weight) => weight / count);
}

// Pooled logits of map.ids. A class that no cell keeps has the logit 0.
function poolLogits(map, box) {
  const cells = map.height * map.width;
  const down = axisWeights(box[1], box[3], map.height);
  const across = axisWeights(box[0], box[2], map.width);
  const logits = new Float64Array(map.ids.length);
  for (let cell = 0; cell < cells; cell++) {
    const weight = f32(down[Math.floor(cell / map.width)] * across[cell % map.width]);
    if (weight === 0) continue;
    for (let k = 0; k < map.topK; k++) {
      logits[map.index[k * cells + cell]] += weight * map.scores[k * cells + cell];
    }
  }
  return logits;
}

// The part of a box that is in a region, normalised by the region; null if there is none.
function cutBox(box, region) {
  const [x1, y1, x2, y2] = region;
  const [left, top] = [Math.max(box[0], x1), Math.max(box[1], y1)];
  const [right, bottom] = [Math.min(box[2], x2), Math.min(box[3], y2)];
  if (left >= right || top >= bottom) return null;
  return [(left - x1) / (x2 - x1), (top - y1) / (y2 - y1), (right - x1) / (x2 - x1), (bottom - y1) / (y2 - y1)];
}

// The training target of a crop: the probability of each of map.ids, and that of each other class. Null if the map
// covers no part of the crop. The temperature divides the logits.
function cropTarget(map, box, kind, temperature) {
  if (kind === "original") return oneHot(map, map.ids.indexOf(map.label));
  const part = kind.startsWith("global") ? [0, 0, 1, 1] : cutBox(box, map.region);
  if (part === null) return null;
  const logits = poolLogits(map, part).map((logit) => logit / temperature);
  // Of equal logits the first class is the arg max, as in numpy; map.ids are rising.
  if (kind.endsWith("-single")) return oneHot(map, logits.indexOf(Math.max(...logits)));
  const others = map.count - map.ids.length; // where there are none, their logit is unused
  const highest = others ? Math.max(0, ...logits) : Math.max(...logits);
  const masses = logits.map((logit) => Math.exp(logit - highest));
  const otherMass = others ? Math.exp(-highest) : 0;
  const total = masses.reduce((sum, mass) => sum + mass, others * otherMass);
  return { probabilities: masses.map((mass) => mass / total), other: otherMass / total };
}

function oneHot(map, at) {
  const probabilities = new Float64Array(map.ids.length);
  probabilities[at] = 1;
  return { probabilities, other: 0 };
}

// The kept classes of a cell and their probabilities: exact with a tail, else among the kept classes.
function cellClasses(map, cell) {
  const cells = map.height * map.width;
  const scores = Array.from({ length: map.topK }, (_, k) => map.scores[k * cells + cell]);
  const masses = scores.map((score) => Math.exp(score - scores[0]));
  const tail = map.tail === null ? 0 : Math.exp(map.tail[cell] - scores[0]);
  const total = masses.reduce((sum, mass) => sum + mass, tail);
  return scores.map((score, k) => ({ at: map.index[k * cells + cell], score, probability: masses[k] / total }));
}
