/* Sparsity slider that replaces the static picture of an explorer without a kernel. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

async function slide(panel) {
  const [spec, texts] = await unpacked(panel.dataset.levels);
  const input = panel.querySelector("input");
  const options = { renderer: "svg", actions: false, ast: true };
  const { view } = await vegaEmbed(panel.querySelector(".sx-live"), spec, options);
  const move = () => {
    for (const place of panel.querySelectorAll("[data-show]")) {
      place.textContent = texts[place.dataset.show][input.value];
    }
    input.setAttribute("aria-valuetext", texts.spoken[input.value]);
    view.signal("level", Number(input.value)).runAsync();
  };
  input.addEventListener("input", move);
  move();
  panel.hidden = false;
  const still = panel.closest(".sx-still");
  for (const part of still.querySelectorAll("img, .sx-say-still")) part.hidden = true;
}

document.querySelectorAll(".sx-levels").forEach(slide);
