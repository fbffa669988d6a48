// Texts of the page by key, from its JSON element.
export const words = JSON.parse(document.getElementById("words").textContent);
