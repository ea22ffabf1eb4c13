/** The lease in a notebook: what is left, and buttons that act with the rights of whoever looks. */

const MINUTE = 60;
const HOUR = 60 * MINUTE;

function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} min`;
  const hours = Math.floor(whole / HOUR);
  const minutes = Math.floor((whole % HOUR) / MINUTE);
  return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
}

function sentence(lease, now) {
  if (!lease.state) return "Reading the lease …";
  if (!lease.live) return told(lease.reason || "The lease is over.", now);
  if (!lease.expires_at) return "The lease has not begun.";
  const end = new Date(lease.expires_at);
  const left = (end - now) / 1000;
  if (left <= 0) return "The lease is ending.";
  const clock = end.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  return `${duration(left)} left, until ${clock}`;
}

/** A sentence of the service with the moments that it has marked, in the browser's zone. */
function told(text, now) {
  return text.replace(/(?<![\w:.-])\d{4}-\d\d-\d\dT\d\d:\d\dZ(?!\w)/g, mark => {
    const at = new Date(mark);
    if (Number.isNaN(at.getTime())) return mark;
    const clock = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
    if (at.toDateString() === now.toDateString()) return clock;
    const day = at.toLocaleDateString([], { weekday: "short", day: "numeric", month: "short" });
    return `${day} ${clock}`;
  });
}

function page() {
  const element = document.getElementById("jupyter-config-data");
  return element ? JSON.parse(element.textContent) : {};
}

async function ask(path, body) {
  const config = page();
  const headers = { "Content-Type": "application/json" };
  if (config.token) headers.Authorization = `token ${config.token}`;
  const cookie = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/);
  if (cookie) headers["X-XSRFToken"] = decodeURIComponent(cookie[1]);
  let answer;
  try {
    answer = await fetch(`${config.baseUrl || "/"}gpudev/${path}`, {
      method: "POST",
      headers,
      body: JSON.stringify(body)
    });
  } catch {
    throw new Error("The server cannot be reached at the moment. Try again in a minute.");
  }
  if (answer.ok) return;
  const said = await answer.json().catch(() => ({}));
  throw new Error((said.error && said.error.message) || "That did not work. Try again.");
}

function button(text, label, press) {
  const made = document.createElement("button");
  made.className = "gpudev-widget-button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", press);
  return made;
}

export default {
  render({ model, el }) {
    el.classList.add("gpudev-widget");
    const title = document.createElement("strong");
    const left = document.createElement("span");
    const buttons = document.createElement("span");
    const notice = document.createElement("div");
    notice.setAttribute("role", "status");
    el.append(title, " ", left, " ", buttons, notice);
    let said = "";
    let busy = false;
    let drawn = "";

    async function act(path, body) {
      if (busy) return;
      busy = true;
      draw();
      try {
        await ask(path, body);
        said = "";
      } catch (error) {
        said = error.message;
      }
      busy = false;
      draw();
    }

    function release() {
      if (window.confirm("Give the GPUs back now? The server ends; the disk is kept.")) {
        act("release", {});
      }
    }

    function offered(lease) {
      if (!lease.live || !lease.expires_at) return [];
      const hours = [1, 4].filter(one => lease.possible_hours >= one);
      return [
        ...hours.map(one => [`+${one} h`, `Extend the lease by ${one} h`, () => act("extension", { hours: one })]),
        ["Give back", "Give the GPUs back and end the server", release]
      ];
    }

    function tick() {
      left.textContent = sentence(model.get("lease"), new Date());
    }

    function draw() {
      const lease = model.get("lease");
      title.textContent = [lease.what, lease.simulated ? "(simulated)" : ""].filter(Boolean).join(" ");
      tick();
      const wanted = offered(lease);
      const words = wanted.map(([text]) => text).join();
      // The same buttons stay where they are, with the focus.
      if (words !== drawn) {
        drawn = words;
        buttons.replaceChildren(...wanted.map(one => button(...one)));
      }
      for (const one of buttons.children) one.setAttribute("aria-disabled", String(busy));
      const full = lease.live && lease.possible_hours <= 0 ? lease.limited_by : "";
      notice.textContent = told(said || model.get("problem") || full || "", new Date());
    }

    model.on("change:lease", draw);
    model.on("change:problem", draw);
    draw();
    const timer = setInterval(tick, 1000);
    return () => {
      clearInterval(timer);
      model.off("change:lease", draw);
      model.off("change:problem", draw);
    };
  }
};
