// Text of numbers, as words/number_format.py writes it, and of the catalogue.
const THIN = "\u202f";
const UNKNOWN = "–";
const PREFIXES = ["", "k", "M", "G", "T", "P"];

export const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const clip = (text,
  most) => (text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text);

// Round half to even, as Python does; toFixed rounds ties up.
function fixed(value, digits) {
  const [text, exact] = [Math.abs(value).toFixed(digits),
    Math.abs(value).toFixed(Math.min(100, digits + 60))];
  const tie = /^5?0*$/.test(exact.slice(exact.indexOf(".") + 1 + digits))
    && exact[exact.indexOf(".") + 1 + digits] === "5";
  let rounded = text;
  if (tie && Number(text.at(-1)) % 2) {
    const down = exact.slice(0, exact.indexOf(".") + (digits ? 1 + digits : 0));
    rounded = Number(down.at(-1)) % 2 ? text : down;
  }
  return (value < 0 ? "-" : "") + rounded;
}

export class Text {
  constructor(words) {
    this.words = words;
  }

  // Return a text of the catalogue with values put in.
  say(key, values = {}) {
    return (this.words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  }

  figures(value, digits) {
    if (!known(value)) return UNKNOWN;
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    return fixed(value, digits);
  }

  count(number) {
    return known(number) ? String(number).replace(/\B(?=(\d{3})+$)/g, THIN) : UNKNOWN;
  }

  percent(share, digits = 1, space = " ") {
    if (!known(share)) return UNKNOWN;
    const smallest = 10 ** -digits;
    let [hundredths, sign] = [100 * share, ""];
    if (hundredths > 0 && hundredths < smallest / 2) [hundredths, sign] = [smallest, "<"];
    else if (hundredths > 100 - smallest / 2 && hundredths < 100) {
      [hundredths, sign] = [100 - smallest, ">"];
    }
    return [sign, this.figures(hundredths, digits), "%"].filter(Boolean).join(space);
  }

  points(share) {
    if (known(share) && Math.abs(share) < 0.0005) return this.figures(0, 1);
    const text = this.figures(known(share) ? 100 * share : null, 1);
    return (share > 0 ? "+" : "") + text.replace("-", "−");
  }

  level(share) {
    const text = String(Number((100 * share).toPrecision(6)));
    return known(share) ? `${text} %` : UNKNOWN;
  }

  scaled(quantity, unit = "", space = " ") {
    if (!known(quantity)) return UNKNOWN;
    let step = 0;
    for (; Math.abs(quantity) >= 999.5 && step < PREFIXES.length - 1; step += 1) quantity /= 1000;
    const size = Math.abs(quantity);
    const digits = step === 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
    const name = `${PREFIXES[step]}${unit}`;
    return [this.figures(quantity, digits), name].filter(Boolean).join(space);
  }

  // Write a ratio; digits are added until one other than 1 reads so.
  times(ratio) {
    if (!known(ratio)) return UNKNOWN;
    let digits = 2;
    while (ratio !== 1 && digits < 17 && Number(fixed(ratio, digits)) === 1) digits += 1;
    return `${this.figures(ratio, digits)} ×`;
  }

  // Write a number with some significant digits, without trailing zeros of the exponent form.
  significant(value, digits = 3) {
    if (!known(value)) return UNKNOWN;
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e-4 || size >= 1e6) return value.toExponential(digits - 1).replace("-", "−");
    return this.figures(value, Math.max(0, digits - 1 - Math.floor(Math.log10(size)))).replace("-",
      "−");
  }

  // Write a value of a metric by its kind.
  value(value, kind) {
    if (kind === "share") return this.percent(value);
    if (kind === "points") return this.points(value);
    if (kind === "ratio") return this.times(value);
    if (kind === "own") return this.significant(value, 4);
    if (kind === "nats") return (value >= 0 ? "+" : "") + this.figures(value, 3).replace("-", "−");
    return this.scaled(value, kind === "bytes" ? "B" : "");
  }
}
