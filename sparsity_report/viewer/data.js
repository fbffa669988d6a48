// The payload of a viewer: a header of JSON and arrays, compressed.
const FORMAT = 1;
const DAMAGED = "The data of this viewer are damaged. Run the cell again, or write the page again.";
const UNSUPPORTED = "This browser cannot open the viewer. Use one with DecompressionStream: Chrome"
  + " 80, Firefox 113, Safari 16.4 or later.";

function shuffled(bytes, length) {
  const values = new Uint8Array(8 * length);
  for (let plane = 0; plane < 8; plane += 1) {
    for (let i = 0; i < length; i += 1) values[8 * i + plane] = bytes[plane * length + i];
  }
  return new Float64Array(values.buffer);
}

// Integers by row from second differences, which are small.
function levels(bytes, { rows, columns, planes }) {
  const [size, values] = [rows * columns, new Float64Array(rows * columns)];
  for (let plane = planes - 1; plane >= 0; plane -= 1) {
    for (let i = 0; i < size; i += 1) values[i] = 256 * values[i] + bytes[plane * size + i];
  }
  for (let row = 0; row < rows; row += 1) {
    let [value, step] = [0, 0];
    for (let i = row * columns, k = 0; k < columns; i += 1, k += 1) {
      const change = values[i] % 2 ? -(values[i] + 1) / 2 : values[i] / 2;
      step = k < 2 ? change : step + change;
      value = k ? value + step : change;
      values[i] = value;
    }
  }
  return values;
}

const KINDS = { f8: [({ length }) => 8 * length, (bytes, { length }) => shuffled(bytes, length)],
  u1: [({ length }) => length, (bytes) => bytes],
  levels: [({ rows, columns, planes }) => rows * columns * planes, levels] };

// Return what this window keeps by a key, after storing a value; null in frames without storage.
export function stored(key, value = undefined) {
  try {
    if (value !== undefined) sessionStorage.setItem(key, JSON.stringify(value));
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null;
  }
}

// Show a sentence in place of a viewer, above what was in its place before it.
export function fail(root, error) {
  root.viewer?.close();
  const sentence = Object.assign(document.createElement("p"), { className: "sv-sentence",
    textContent: globalThis.DecompressionStream ? DAMAGED : UNSUPPORTED, title: String(error) });
  root.replaceChildren(sentence, ...root.still ?? root.childNodes);
  return null;
}

export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Return the header of a payload with its arrays; throw an error if it is damaged.
export async function open(packed) {
  const bytes = await inflate(packed);
  const size = new DataView(bytes.buffer).getUint32(0, true);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const data = JSON.parse(decoder.decode(bytes.subarray(4, 4 + size)));
  if (data.format !== FORMAT) throw new Error(`format ${data.format}`);
  let at = 4 + size;
  data.arrays = data.arrays.map((one) => {
    const [length, read] = KINDS[one.kind];
    const end = at + length(one);
    if (!(end <= bytes.length)) throw new Error("the payload is cut");
    const values = read(bytes.subarray(at, end), one);
    at = end + ((8 - (end % 8)) % 8);
    return values;
  });
  return data;
}
