// The script of a page and of a widget.
import { readBudget, solve } from "./budget.js";
import { open } from "./data.js";
import { inert } from "./elements.js";
import { Figures } from "./figures.js";
import { render } from "./kernel.js";
import { Store } from "./state.js";
import { mount } from "./viewer.js";

globalThis.sparsityViewer = { Figures, Store, inert, mount, open, render, readBudget, solve };
