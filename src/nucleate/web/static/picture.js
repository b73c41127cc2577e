// Saves what is shown as a PNG file, with the scale bar.

const byId = (id) => document.getElementById(id);

export async function save(canvas, name, ratio) {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const pencil = copy.getContext("2d");
  pencil.fillStyle = getComputedStyle(canvas.parentElement).backgroundColor;
  pencil.fillRect(0, 0, copy.width, copy.height);
  pencil.drawImage(canvas, 0, 0);
  drawBar(pencil, canvas, ratio);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await copy.convertToBlob({ type: "image/png" }));
  link.download = `${name.replace(/[^\p{L}\p{N}._ -]+/gu, "_")}_view.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // once it was saved
}

// The scale bar where the page has it.
function drawBar(pencil, canvas, ratio) {
  const bar = byId("bar");
  if (bar.hidden) return;
  const [at, around] = [bar, canvas].map((element) => element.getBoundingClientRect());
  const style = getComputedStyle(bar);
  pencil.save();
  pencil.scale(ratio, ratio);
  pencil.translate(at.left - around.left, at.top - around.top);
  pencil.fillStyle = style.backgroundColor;
  pencil.fillRect(0, 0, at.width, at.height);
  pencil.fillStyle = style.color;
  pencil.fillRect(0, at.height - 4, at.width, 4);
  pencil.font = `${style.fontSize} ${style.fontFamily}`;
  [pencil.textAlign, pencil.textBaseline] = ["center", "middle"];
  pencil.fillText(bar.textContent, at.width / 2, (at.height - 4) / 2);
  pencil.restore();
}
