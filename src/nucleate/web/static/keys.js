// The keyboard: letters choose tools and do things; arrows move a cross that uses the tool as a pointer does.

const FAST = 10; // pixels that an arrow moves with Shift
const byId = (id) => document.getElementById(id);

const TOOLS = { v: "hand", b: "brush", e: "eraser", p: "polygon", s: "split", m: "merge", f: "fill", x: "region" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function listenToKeys(canvas, actions) {
  const letters = {
    "[": () => actions.resize(-1),
    "]": () => actions.resize(1),
    a: actions.accept,
    n: actions.next,
    h: () => actions.toggle("hidden"),
    u: () => actions.toggle("open"),
    i: () => actions.toggle("entropy"),
    ",": () => actions.step(-1),
    ".": () => actions.step(1),
    "+": () => actions.zoom(1.5),
    "=": () => actions.zoom(1.5),
    "-": () => actions.zoom(1 / 1.5),
    0: actions.whole,
    "?": actions.help,
    Delete: actions.remove,
    Backspace: actions.remove,
    Escape: actions.cancel,
  };
  window.addEventListener("keydown", (event) => {
    if (event.altKey || byId("help").open) return;
    if (event.target.matches?.("input[type=number], input[type=text], select, textarea")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = event.ctrlKey || event.metaKey ? held(key, event.shiftKey) : plain(key, event);
    if (!action) return;
    event.preventDefault();
    action();
  });

  function held(key, shift) {
    if (key === "z") return shift ? actions.redo : actions.undo;
    return key === "y" ? actions.redo : undefined;
  }

  function plain(key, { shiftKey, target }) {
    if (key === "a" && shiftKey) return actions.acceptAll;
    if (TOOLS[key]) return () => actions.choose(TOOLS[key], true);
    if (letters[key]) return letters[key];
    const onCanvas = target === canvas || target === document.body;
    if (!onCanvas) return undefined;
    if (ARROWS[key]) return () => actions.moveCross(...ARROWS[key].map((way) => way * (shiftKey ? FAST : 1)));
    if (key === " ") return actions.press;
    return key === "Enter" ? actions.close : undefined;
  }
}
