import js from "@eslint/js";
import globals from "globals";

export default [{ ignores: ["**/bundle/", "docs/", ".venv/", "build/"] }, {
  ...js.configs.recommended,
  languageOptions: { globals: globals.browser },
}, {
  rules: { eqeqeq: "error", "prefer-const": "error", "no-var": "error",
    "object-shorthand": "error" },
}, { files: [".ci/*.js", "tests/**/*.mjs"], languageOptions: { globals: globals.node } }];
