/* Light or dark as the Hub's pages have it; runs before anything is painted. */
"use strict";
(() => {
  const key = "jupyterhub-bs-theme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  const stored = () => {
    try { return localStorage.getItem(key); } catch { return null; } // storage may be forbidden
  };
  const apply = () => {
    const chosen = stored();
    const theme = chosen === "dark" || chosen === "light" ? chosen : system.matches ? "dark" : "light";
    document.documentElement.setAttribute("data-bs-theme", theme);
  };

  apply();
  system.addEventListener("change", apply);
  window.addEventListener("storage", (event) => { if (event.key === key) apply(); });
  document.addEventListener("DOMContentLoaded", () => {
    const place = document.getElementById("theme");
    place.hidden = false;
    place.querySelector("button").addEventListener("click", () => {
      const dark = document.documentElement.getAttribute("data-bs-theme") === "dark";
      try { localStorage.setItem(key, dark ? "light" : "dark"); } catch { /* it holds for this page */ }
      document.documentElement.setAttribute("data-bs-theme", dark ? "light" : "dark");
    });
  });
})();
