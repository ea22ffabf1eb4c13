/* Keeps a page current: times in the viewer's zone, cards and parts that have changed. Everything here
   is on top: without it the page says the same, in UTC, and is brought up to date by reloading. */
"use strict";
(() => {
  const body = document.body;
  const words = window.gpudevWords;
  const serverAhead = Date.parse(body.dataset.now) - Date.now();
  const now = () => Date.now() + serverAhead;
  const headers = { "X-XSRFToken": body.dataset.xsrf };

  // --- times --------------------------------------------------------------------------------------

  const tell = (root = document) => {
    for (const element of root.querySelectorAll("time[data-words]")) {
      const text = words[element.dataset.words](Date.parse(element.dateTime), now());
      if (element.textContent !== text) element.textContent = text;
    }
  };

  // --- replacing what has changed -------------------------------------------------------------------

  const typing = new WeakSet(); // forms that somebody has begun to fill in
  document.addEventListener("input", (event) => typing.add(event.target.form));

  /* Nothing is taken away under the fingers of somebody who types or chooses. */
  const busy = (element) =>
    element.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")
    || [...element.querySelectorAll("form")].some((form) => typing.has(form))
    || [...element.querySelectorAll("details")].some((details) => details.open);

  const swap = (old, fresh) => {
    if (busy(old) || old.isEqualNode(fresh)) return;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const place = focused ? focusable(old).indexOf(focused) : -1;
    tell(fresh);
    old.replaceWith(fresh);
    if (place >= 0) (focusable(fresh)[place] ?? focusable(fresh)[0])?.focus();
  };
  const focusable = (element) => [...element.querySelectorAll("a, button, input, select, summary")];

  const get = async (address) => {
    const answer = await fetch(address, { headers, credentials: "same-origin", redirect: "error" });
    if (answer.status === 401 || answer.status === 403) throw new LoggedOut();
    return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
  };
  class LoggedOut extends Error {}

  /* Parts of the present page, fetched anew as a whole. */
  const refresh = async () => {
    const fresh = await get(location.href);
    if (!fresh) return;
    for (const part of document.querySelectorAll("[data-part]")) {
      const found = fresh.getElementById(part.id);
      if (found) swap(part, document.adoptNode(found));
    }
  };

  const refreshCard = async (id) => {
    const cards = document.getElementById("cards");
    const fresh = await get(`${body.dataset.prefix}reservations/${id}/card`);
    const card = fresh?.querySelector("[data-reservation]");
    if (!card) return;
    const old = document.getElementById(card.id);
    document.adoptNode(card);
    if (old) swap(old, card);
    else {
      tell(card);
      cards.prepend(card);
      document.getElementById("none")?.remove();
    }
  };

  /* One request at a time for each thing, and one more if it changed meanwhile. */
  const running = new Map();
  const soon = (key, work) => {
    if (running.has(key)) { running.set(key, true); return; }
    running.set(key, false);
    setTimeout(async () => {
      try { await work(); } catch (error) { lost(error); }
      const again = running.get(key);
      running.delete(key);
      if (again) soon(key, work);
    }, 150);
  };

  // --- what is said ---------------------------------------------------------------------------------

  const connection = document.getElementById("connection");
  const lost = (error) => {
    connection.hidden = false;
    connection.textContent = error instanceof LoggedOut
      ? "Your login has ended. Reload the page to log in again."
      : "The connection is lost; what you see may be out of date. It is tried again.";
  };
  const connected = () => { connection.hidden = true; };
  const announce = (event) => {
    if (event.kind === "present") return;
    document.getElementById("announcement").textContent = words.told(`${event.reservation.name}: ${event.message}`, now());
  };

  // --- events ---------------------------------------------------------------------------------------

  const single = document.querySelector("[data-live=reservation]")?.dataset.reservation;
  const list = document.querySelector("[data-live=reservations]");
  const parts = document.querySelector("[data-part]");
  // The stream begins with what has happened since the page was rendered.
  let lastId = body.dataset.lastEvent;

  const final = (state) => ["expired", "cancelled", "failed"].includes(state);

  /* What a reservation was like when the stream last said so. "present" is sent at each connection:
     where it differs, events were missed that are no longer sent again. */
  const seen = new Map();
  const take = (event) => {
    const reservation = event.reservation;
    const state = JSON.stringify(reservation);
    const before = seen.get(reservation.id);
    seen.set(reservation.id, state);
    lastId = event.id;
    if (event.kind === "present" && (before === undefined || before === state)) return;
    announce(event);
    if (parts) soon("page", refresh);
    const viewer = body.dataset.viewer;
    const invited = (reservation.collaborators ?? []).some((one) => one.user === viewer);
    if (list && (reservation.user === viewer || invited)) {
      const there = document.getElementById(`r-${reservation.id}`);
      if (there || !final(reservation.state)) soon(reservation.id, () => refreshCard(reservation.id));
    }
  };

  const listen = async (signal) => {
    const asked = { ...headers, "Last-Event-ID": String(lastId) };
    const address = single ? `${body.dataset.prefix}api/v1/reservations/${single}/events` : body.dataset.events;
    const answer = await fetch(address, { headers: asked, credentials: "same-origin", redirect: "error", signal });
    if (answer.status === 401 || answer.status === 403) throw new LoggedOut();
    if (answer.status === 204) return true;
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    connected();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return false;
      const messages = (text + value).split("\n\n");
      text = messages.pop();
      for (const message of messages) {
        const data = message.split("\n").find((line) => line.startsWith("data: "));
        if (data) take(JSON.parse(data.slice(6)));
      }
    }
  };

  let stop = null;
  const follow = async () => {
    let wait = 1000;
    const controller = new AbortController();
    stop = () => controller.abort();
    while (!controller.signal.aborted) {
      const began = Date.now();
      try {
        if (await listen(controller.signal)) return;
      } catch (error) {
        if (controller.signal.aborted) return;
        lost(error);
        if (error instanceof LoggedOut) return;
      }
      wait = Date.now() - began > 30000 ? 1000 : Math.min(wait * 2, 60000);
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random())));
    }
  };

  // --- while the page is visible --------------------------------------------------------------------

  let ticker = null;
  let lastRefresh = Date.now();
  const tick = () => {
    tell();
    const every = Math.min(...[...document.querySelectorAll("[data-refresh]")].map((e) => Number(e.dataset.refresh)));
    if (Number.isFinite(every) && Date.now() - lastRefresh >= every * 1000) {
      lastRefresh = Date.now();
      soon("page", refresh);
    }
  };
  const show = () => {
    if (document.hidden) {
      clearInterval(ticker);
      stop?.();
      ticker = stop = null;
      return;
    }
    if (ticker) return;
    tick();
    ticker = setInterval(tick, document.querySelector("[data-refresh='3']") ? 3000 : 30000);
    if (body.dataset.viewer && (single || list || parts)) follow();
  };
  document.addEventListener("visibilitychange", show);
  window.addEventListener("pagehide", () => stop?.());
  document.documentElement.classList.add("gd-script");
  show();
})();
