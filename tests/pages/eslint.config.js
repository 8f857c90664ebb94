import js from "@eslint/js";
import globals from "globals";

// Everything that would turn text from the database into HTML or code. `textContent` and `append`
// never do.
const unsafe = ["innerHTML", "outerHTML", "insertAdjacentHTML", "setHTMLUnsafe", "parseHTMLUnsafe", "srcdoc", "write", "writeln"];

export default [
  { ignores: ["src/pages/shared/vendor/"] },
  js.configs.recommended,
  {
    rules: {
      eqeqeq: "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-nested-ternary": "error",
      "no-new-func": "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
    },
  },
  {
    files: ["src/pages/**/*.js"],
    languageOptions: { globals: globals.browser },
    rules: { "no-restricted-properties": ["error", ...unsafe.map((property) => ({ property }))] },
  },
  { files: ["src/pages/worker.js"], languageOptions: { globals: globals.serviceworker } },
  // A test runs in Node, and parts of it run in a page.
  { files: ["tests/pages/**"], languageOptions: { globals: { ...globals.node, ...globals.browser } } },
];
