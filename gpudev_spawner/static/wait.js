// Follows a start on the waiting page. Without it the page shows the state of when it was loaded.
(function () {
  "use strict";
  const root = document.querySelector("[data-gpudev-progress]");
  if (!root) return;
  const line = document.getElementById("gpudev-message");
  const bar = document.getElementById("gpudev-progress");
  const log = document.getElementById("gpudev-log");
  const leave = document.getElementById("gpudev-leave");
  const hint = document.getElementById("gpudev-hint");
  const title = document.getElementById("gpudev-title");
  const QUEUED_AT_MOST = 20; // percent; from there on the GPUs are ours
  let shown = null;

  function say(event) {
    const key = event.html_message || event.message;
    if (!key || key === shown) return; // signs of life repeat what is known
    shown = key;
    if (event.html_message) line.innerHTML = event.html_message; // escaped by the Hub's spawner
    else line.textContent = event.message;
    window.gpudevTimes.localise(line);
    const entry = document.createElement("li");
    const time = document.createElement("span");
    time.className = "text-body-secondary me-2";
    time.textContent = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
    entry.append(time, line.textContent);
    log.append(entry);
  }

  const source = new EventSource(root.dataset.gpudevProgress);
  source.onmessage = function (message) {
    const event = JSON.parse(message.data);
    if (event.progress === 0) return; // the Hub's own greeting says nothing about the state
    say(event);
    if (event.progress !== undefined) {
      bar.setAttribute("aria-valuenow", event.progress);
      bar.firstElementChild.style.width = event.progress + "%";
      const waiting = event.progress <= QUEUED_AT_MOST;
      bar.hidden = waiting; // nobody can say how full a bar would be
      title.textContent = waiting ? "Waiting for GPUs" : "Your server is starting";
      if (leave) leave.textContent = waiting ? "Leave the queue" : "Stop";
      hint.hidden = !waiting;
    }
    if (event.ready) {
      source.close();
      window.location.reload(); // the Hub redirects to the running server
    }
    if (event.failed) ended(event);
  };

  function ended(event) {
    source.close();
    const left = event.message === "Spawn cancelled";
    title.textContent = left ? "The start was cancelled" : "The server did not start";
    if (left) line.textContent = "Nobody waits for this server any more.";
    bar.hidden = hint.hidden = true;
    if (leave) leave.hidden = true;
    document.getElementById("gpudev-again").hidden = false;
  }

  // Somebody who leaves goes home; the end of the start is no news to them.
  if (leave) leave.form.addEventListener("submit", function () { source.close(); });

  // A Hub that was restarted has forgotten this start, and the queue has not: the form's address
  // shows how it stands, or leads to the server. Asked for until the Hub is back.
  source.onerror = function () {
    if (source.readyState !== EventSource.CLOSED) return; // it reconnects by itself
    line.textContent = "The Hub is not answering. Your place in the queue is kept.";
    let pause = 2000;
    async function look() {
      try {
        const answer = await fetch(root.dataset.gpudevForm, { redirect: "manual" });
        if (answer.ok || answer.type === "opaqueredirect") {
          window.location = root.dataset.gpudevForm;
          return;
        }
      } catch (error) {
        console.info("the Hub is away:", error.message);
      }
      pause = Math.min(pause * 1.5, 30000);
      setTimeout(look, pause);
    }
    setTimeout(look, pause);
  };
})();
