// The widget of a notebook: this line follows the bundle of viewer.js.
export default globalThis.sparsityViewer;
