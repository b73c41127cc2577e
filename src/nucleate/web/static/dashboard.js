// The side panel: the tile, what is saved, and how the model learns.

const byId = (id) => document.getElementById(id);
const STATES = { done: "learnt from", skipped: "nothing said", open: "begun" };
const WIDTH = 240; // of the curve, in its own units
const HEIGHT = 56;

const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

function say(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

export function showTile({ picture, box, bits }) {
  const whole = box.width === picture.width && box.height === picture.height;
  say("tile-name", picture.name);
  say("tile-place", whole ? `${box.width} × ${box.height} px` : `${box.width} × ${box.height} px at x ${box.x}, y ${box.y}`);
  say("bits", bits === null ? "…" : `${bits.toFixed(3)} bits`);
}

export function showCounts({ nuclei, open, known }) {
  say("said-count", String(nuclei));
  say("open-count", String(open));
  say("known", percent(known));
  byId("known-bar").value = known;
}

export function showSaved(sync) {
  const count = sync?.waiting.length ?? 0;
  const strokes = `${count} ${count === 1 ? "stroke" : "strokes"}`;
  const text = count === 0 ? "All saved" : sync.problem ? `Not saved yet, ${strokes}: ${sync.problem}` : `Saving ${strokes}`;
  say("saved", text);
  byId("saved").dataset.state = count === 0 ? "saved" : sync.problem ? "problem" : "saving";
}

export function showReport(report, open) {
  const { learning, waiting, problem, takenBack, sentinel, sentinelBefore, drift, seconds, corrections } = report;
  const left = waiting ? `, ${waiting} more ${waiting === 1 ? "waits" : "wait"}` : "";
  let text = corrections ? `The model has learnt from ${corrections} ${corrections === 1 ? "tile" : "tiles"}.` : "Nothing learnt yet.";
  if (learning) text = `The model learns${left}. Go on as you like.`;
  else if (waiting) text = `${waiting} ${waiting === 1 ? "tile waits" : "tiles wait"} to be learnt from.`;
  else if (seconds !== null) text += ` The last update took ${seconds.toFixed(1)} s.`;
  say("learning-text", text);
  byId("learning").dataset.state = learning || waiting ? "busy" : "idle";
  say("corrections", String(corrections));
  say("corrected-nuclei", report.nuclei.toLocaleString("en"));
  say("prequential", score(report.prequential));
  const change = sentinel === null ? 0 : sentinel - sentinelBefore;
  say("sentinel", sentinel === null ? "–" : `${score(sentinel)} (${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(3)})`);
  say("drift", drift ? "yes" : corrections ? "no" : "–");
  const notes = [...report.notes];
  if (problem) notes.push(problem);
  if (takenBack) notes.push(`The last update was taken back: the sentinel score would have fallen to ${score(sentinel)}.`);
  if (drift) notes.push("The images have changed: train off-line again, with nucleate train --from this model.");
  byId("notes").hidden = !notes.length;
  if (byId("notes").dataset.said !== notes.join("\n")) {
    byId("notes").dataset.said = notes.join("\n");
    byId("notes").replaceChildren(...notes.map((note) => Object.assign(document.createElement("p"), { textContent: note })));
  }
  say("progress", `${report.done.toLocaleString("en")} of ${report.tiles.toLocaleString("en")} tiles done`);
  drawCurve(report.scores.filter((value) => value !== null));
  showEarlier(report.earlier, open);
}

// The prequential score of each tile, the last ones.
function drawCurve(scores) {
  byId("curve").toggleAttribute("hidden", scores.length < 2);
  if (scores.length < 2) return;
  const at = scores.map((value, index) => {
    return [(4 + (index * (WIDTH - 8)) / (scores.length - 1)).toFixed(1), (HEIGHT - 4 - value * (HEIGHT - 8)).toFixed(1)];
  });
  byId("curve-line").setAttribute("points", at.map((pair) => pair.join(",")).join(" "));
  const [x, y] = at.at(-1);
  byId("curve-end").setAttribute("cx", x);
  byId("curve-end").setAttribute("cy", y);
}

function showEarlier(earlier, open) {
  const key = earlier.map(({ tile, state }) => tile + state).join();
  if (byId("earlier").dataset.key === key) return;
  byId("earlier").dataset.key = key;
  byId("earlier-section").hidden = earlier.length < 2;
  const items = [...earlier].reverse().map(({ tile, name, state }) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.append(Object.assign(document.createElement("span"), { className: "quiet", textContent: STATES[state] }));
    button.addEventListener("click", () => open(tile));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  byId("earlier").replaceChildren(...items);
}
