// Shows every <time data-gpudev-time> in the viewer's own zone; the server only knows UTC.
(function () {
  "use strict";
  function days(at, now) {
    const a = new Date(at.getFullYear(), at.getMonth(), at.getDate());
    const n = new Date(now.getFullYear(), now.getMonth(), now.getDate());
    return Math.round((a - n) / 86400000);
  }
  // Rounded up to the minute: a promise of 18:40:30 must not be shown as 18:40.
  function up(iso) {
    return new Date(Math.ceil(new Date(iso).getTime() / 60000) * 60000);
  }
  function clock(at) {
    return String(at.getHours()).padStart(2, "0") + ":" + String(at.getMinutes()).padStart(2, "0");
  }
  function parts(iso) {
    const at = up(iso);
    const away = days(at, new Date());
    const near = { "-1": "yesterday", 0: "", 1: "tomorrow" }[away];
    const day = at.toLocaleDateString("en", { weekday: "short", day: "numeric", month: "short" });
    return { near: near, day: near === undefined ? day : near, clock: clock(at) };
  }
  function words(iso) {
    const at = parts(iso);
    if (at.day === "") return "at " + at.clock;
    return (at.near === undefined ? "on " : "") + at.day + " at " + at.clock;
  }
  function short(iso) {
    const at = parts(iso);
    return (at.day + " " + at.clock).trim();
  }
  function localise(root) {
    root.querySelectorAll("time[data-gpudev-time]").forEach(function (element) {
      const iso = element.getAttribute("datetime");
      if (isNaN(new Date(iso))) return;
      element.textContent = words(iso);
      element.title = new Date(iso).toString();
    });
    root.querySelectorAll("option[data-gpudev-start]").forEach(function (option) {
      option.textContent = option.dataset.gpudevLabel + " – starts by " + short(option.dataset.gpudevStart);
    });
  }
  window.gpudevTimes = { localise: localise };
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", function () { localise(document); });
  } else {
    localise(document);
  }
})();
