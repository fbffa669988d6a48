// Types of the viewer's values.

/** Values of the controls; `selection` and `detail` are positions of modules. */
export interface State {
  variant: string;
  policy: string;
  sparsity: number;
  layout: Layout;
  metric: string;
  against: string;
  against_policy: string;
  against_sparsity: number;
  modules: string;
  colors: "auto" | "fitted" | "full";
  grouping: "group" | "projection" | "block";
  sort: string;
  search: string;
  detail: number;
  selection: number[];
  panel: "layer" | "groups" | "costs";
}

/** Values that page, kernel and address share, with the names of modules. */
export type Traits = Omit<State, "selection" | "detail" | "panel"> & { selection: string[];
  detail: string | null };

export type Layout = "csr" | "bitmask" | "dense";
export type Numbers = Float64Array;

/** A figure of a module. */
type Value = (i: number) => number;

export interface Metric {
  key: string;
  label: string;
  note: string;
  kind: "share" | "points" | "ratio" | "own" | "nats" | "bytes" | "number";
  signed: boolean;
  root: boolean;
  ofParts?: boolean;
  parts?: string[];
  amount?: Value;
  size?: Value | null;
  error?: Value | null;
}

/** A metric with the places of its arrays. */
export type PayloadMetric = Omit<Metric, "amount" | "size"> & { amounts?: number; sizes?: number };

/** Counts of a variant by module, NaN where it lacks the module. */
export interface Variant {
  name: string;
  label: string;
  layout: "dense" | "masked" | "csr";
  sparsity: number | null;
  isFirst: boolean;
  isMagnitude: boolean;
  pattern: string;
  isRepeated: boolean;
  command: string | null;
  threshold: number | null;
  shapes: (number[] | null)[];
  dtypes: (string | null)[];
  total: Numbers;
  nonzero: Numbers;
  weightTotal: Numbers;
  weightNonzero: Numbers;
  value: Numbers;
  pointers: Numbers;
  columns: Numbers;
  usesTop: Numbers;
  usesBottom: Numbers;
  rest: Numbers;
  restFlops: Numbers;
  flops: Numbers;
  stored: Numbers;
  base: Numbers;
  prunable: Uint8Array;
  runs: Uint8Array;
}

/** Levels of a pruning policy: nonzeros by row of `rows` and level, or why there are none. */
export interface Policy {
  key: string;
  label: string;
  disabled?: string;
  levels: number[];
  rows: Numbers;
  left: Numbers;
  slack: number[];
  most: Record<string, (number | null)[]>;
  thresholds: (number | null)[] | null;
  patterns: string[] | null;
  calls: string[];
  commands: (string | null)[];
}

/** Nonzeros of all modules of a variant or level. */
export interface Counts {
  of: Variant;
  left: Numbers;
  weights?: Numbers;
  nonzero?: Numbers;
  slack?: Numbers | null;
  more?: Counts | null;
}

/** The header of a payload; of two checkpoints it has no variants and policies. */
export interface Payload {
  format: number;
  kind: "study" | "pair";
  title: string;
  words: Record<string, string>;
  modules: { names: string[]; shown: Record<number, string>; blocks: (number | null)[];
    projections: string[]; groups: string[] };
  labels: { groups: Record<string, string> };
  scopes: string[];
  blocks: string[];
  metrics: PayloadMetric[];
  start: Traits;
  arrays: any[];
  payload?: Uint8Array;
  source?: [style: string, script: string] | null;
  variants?: (Variant & { arrays: Record<string, number> })[];
  policies?: Policy[];
  hasWeights?: boolean;
  histograms?: { rows: number; bins: number; top: number; heights: number } | null;
  whyNoHistogram?: string;
  deviation?: number;
  inner?: Record<number, Record<number, Inner>>;
  heads?: Record<number, Record<number, number>>;
  twoFour?: Record<number, number[]>;
  baseline?: number;
  packed?: string | null;
  quality?: { name: string; texts: Record<number, string> } | null;
  scores?: { level: number; value: number; text: string; policy: string }[];
  code?: string;
  command?: string | null;
  prunable?: number;
  overlap?: Record<string, number>;
  rows?: [string, number | (string | null)[], string][];
  removed?: Removed[];
}

interface Inner {
  heads?: number[];
  experts?: number[];
  zero_rows?: number;
  zero_columns?: number;
  reason?: string;
}

interface Removed {
  label: string;
  name: string;
  module: string;
  among: number;
  gone: number[];
}

declare global {
  var sparsityViewer: Record<string, any>;
  /** What the views of an explorer share, by its key. */
  var sparsityHistories: Record<string,
    { first?: State; steps?: State[]; at?: number; sent?: any }>;
  interface HTMLElement {
    viewer?: any;
    still?: Node[];
  }
}
