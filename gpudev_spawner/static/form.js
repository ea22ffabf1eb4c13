// Looks up when the present choice would start, while one picks. The form works without it.
(function () {
  "use strict";
  const root = document.querySelector(".gpudev[data-gpudev-plan]");
  const status = document.getElementById("gpudev-start");
  const form = root && root.closest("form");
  if (!form || !status) return;
  let timer = null;
  let running = null;

  function show(state, html, text) {
    status.hidden = false;
    status.dataset.state = state;
    if (html !== null) status.innerHTML = html; // escaped by the server that made it
    else status.textContent = text;
    window.gpudevTimes.localise(status);
  }

  // Whether the form says it already, at its field.
  function said(plan) {
    return Object.values(plan.faults || {}).every(function (sentence) {
      return Array.from(form.querySelectorAll(".invalid-feedback")).some(function (at) {
        return at.textContent.trim() === sentence;
      });
    }) && Boolean(plan.field);
  }

  // What was wrong when the form was sent has been put right.
  function forgive() {
    const summary = document.getElementById("gpudev-faults");
    if (summary) summary.remove();
    for (const at of form.querySelectorAll(".invalid-feedback")) at.remove();
    for (const at of form.querySelectorAll(".is-invalid")) at.classList.remove("is-invalid");
    for (const at of form.querySelectorAll("[aria-invalid]")) {
      at.removeAttribute("aria-invalid");
      at.removeAttribute("aria-describedby");
    }
  }

  async function look() {
    if (running) running.abort();
    const own = (running = new AbortController());
    const query = new URLSearchParams();
    for (const [key, value] of new FormData(form)) {
      if (typeof value === "string" && key !== "_xsrf") query.append(key, value);
    }
    query.set("user", root.dataset.gpudevUser);
    try {
      const answer = await fetch(root.dataset.gpudevPlan + "?" + query, {
        signal: own.signal,
        headers: { "X-XSRFToken": (window.jhdata || {}).xsrf_token || "" },
      });
      if (!answer.ok) throw new Error(String(answer.status));
      const plan = await answer.json();
      if (!plan.message) {
        forgive();
        show(plan.starts_now ? "now" : "later", plan.html, null);
      } else if (said(plan)) status.hidden = true;
      else show("no", null, plan.message);
    } catch (error) {
      if (error.name !== "AbortError") status.hidden = true;
    }
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(look, 250);
  }

  function choose(id) {
    const radio = document.getElementById(id);
    if (radio) radio.checked = true;
  }
  form.addEventListener("input", function (event) {
    if (event.target.name === "hours_other") choose("gpudev-h-other");
    if (event.target.name === "new_disk") choose("gpudev-d-new");
    if (event.target.name === "disk") choose("gpudev-d-existing");
    soon();
  });
  const other = document.getElementById("gpudev-h-other");
  other.addEventListener("change", function () { form.elements.hours_other.focus(); });
  look();
  // What is free changes while somebody thinks; a hidden page asks nothing.
  setInterval(function () { if (!document.hidden) look(); }, 30000);
  document.addEventListener("visibilitychange", function () { if (!document.hidden) look(); });
})();
