// Text of numbers, as words/number_format.py writes it, and of the catalogue.
const THIN = "\u202f";
const UNKNOWN = "–";
const PREFIXES = ["", "k", "M", "G", "T", "P"];

export const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const thousands = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, THIN);

export const clip = (text,
  most) => (text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text);

/**
 * Return members in the order of their values, with unknown ones last. Zeros before numbers sort
 * block 2 before block 10, as in_view of view_state.py does.
 */
export function ordered(members, valueOf, isRising = true) {
  const pad = (digits) => digits.padStart(9, "0");
  const key = (value) => (typeof value === "string" ? value.replace(/[0-9]+/g, pad) : value);
  const order = ([a], [b]) =>
    known(a) && known(b)
      ? (isRising ? 1 : -1) * (Number(a > b) - Number(a < b))
      : Number(known(b)) - Number(known(a));
  return members.map((one) => [key(valueOf(one)), one]).sort(order).map(([, one]) => one);
}

// Round half to even, as Python does; toFixed rounds ties up.
function fixed(value, digits) {
  const [up, exact] = [digits, Math.min(100, digits + 60)].map((to) => Math.abs(value).toFixed(to));
  const end = exact.indexOf(".") + 1 + digits;
  const isTie = /^50*$/.test(exact.slice(end));
  const down = exact.slice(0, digits ? end : end - 1);
  return (value < 0 ? "-" : "") + (isTie && Number(up.at(-1)) % 2 ? down : up);
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
    return known(number) ? thousands(number) : UNKNOWN;
  }

  percent(share, digits = 1) {
    if (!known(share)) return UNKNOWN;
    const smallest = 10 ** -digits;
    let [hundredths, sign] = [100 * share, ""];
    if (hundredths > 0 && hundredths < smallest / 2) [hundredths, sign] = [smallest, "<"];
    else if (hundredths > 100 - smallest / 2 && hundredths < 100) {
      [hundredths, sign] = [100 - smallest, ">"];
    }
    return [sign, this.figures(hundredths, digits), "%"].filter(Boolean).join(" ");
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

  scaled(quantity, unit = "") {
    if (!known(quantity)) return UNKNOWN;
    let step = 0;
    for (; Math.abs(quantity) >= 999.5 && step < PREFIXES.length - 1; step += 1) quantity /= 1000;
    const size = Math.abs(quantity);
    const digits = step === 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
    const name = `${PREFIXES[step]}${unit}`;
    return `${this.figures(quantity, digits)} ${name}`.trim();
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
    const text = size < 1e-4 || size >= 1e6
      ? value.toExponential(digits - 1)
      : this.figures(value, Math.max(0, digits - 1 - Math.floor(Math.log10(size))));
    return text.replace("-", "−");
  }

  // Write a value of a metric by its kind, with its largest error, rounded up to the same digits.
  value(value, kind, error = 0) {
    if (error) {
      const [text, ...ends] = [0, -error, error].map((by) => this.value(value + by, kind));
      if (!known(value) || ends.every((end) => end === text)) return text;
      const [unit = ""] = /\s\D+$/.exec(text) ?? [];
      const digits = /\.(\d+)/.exec(text)?.[1].length ?? 0;
      const whole = { share: 0.01, points: 0.01 }[kind]
        ?? 1000 ** Math.max(0, PREFIXES.indexOf(unit.trim()[0]));
      const bound = Math.ceil((error / whole) * 10 ** digits - 1e-9) / 10 ** digits;
      return `${text.slice(0, text.length - unit.length)} ±\u00a0${fixed(bound, digits)}${unit}`;
    }
    const signed = () => (value >= 0 ? "+" : "") + this.figures(value, 3).replace("-", "−");
    const write = { share: () => this.percent(value), points: () => this.points(value),
      ratio: () => this.times(value), own: () => this.significant(value, 2), nats: signed,
      count: () => this.count(value), text: () => value };
    return (write[kind] ?? (() => this.scaled(value, kind === "bytes" ? "B" : "")))();
  }
}
