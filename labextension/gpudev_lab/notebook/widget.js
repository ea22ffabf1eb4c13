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
  if (!lease.live) return lease.reason || "The lease is over.";
  if (!lease.expires_at) return "The lease has not begun.";
  const end = new Date(lease.expires_at);
  const left = (end - now) / 1000;
  if (left <= 0) return "The lease is ending.";
  const clock = end.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  return `${duration(left)} left, until ${clock}`;
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
  const answer = await fetch(`${config.baseUrl || "/"}gpudev/${path}`, {
    method: "POST",
    headers,
    body: JSON.stringify(body)
  });
  if (answer.ok) return;
  const said = await answer.json().catch(() => ({}));
  throw new Error((said.error && said.error.message) || "That did not work. Try again.");
}

function button(text, label) {
  const made = document.createElement("button");
  made.className = "gpudev-widget-button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
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

    function act(path, body) {
      return async () => {
        for (const other of buttons.children) other.disabled = true;
        try {
          await ask(path, body);
          said = "";
        } catch (error) {
          said = error.message;
        }
        draw();
      };
    }

    function tick() {
      left.textContent = sentence(model.get("lease"), new Date());
    }

    function draw() {
      const lease = model.get("lease");
      title.textContent = [lease.what, lease.simulated ? "(simulated)" : ""].filter(Boolean).join(" ");
      tick();
      buttons.replaceChildren();
      if (lease.live && lease.expires_at) {
        for (const hours of [1, 4]) {
          if (lease.possible_hours < hours) continue;
          const made = button(`+${hours} h`, `Extend the lease by ${hours} h`);
          made.addEventListener("click", act("extension", { hours }));
          buttons.append(made, " ");
        }
        const release = button("Give back", "Give the GPUs back and end the server");
        release.addEventListener("click", () => {
          if (window.confirm("Give the GPUs back now? The server ends; the disk is kept.")) {
            act("release", {})();
          }
        });
        buttons.append(release);
      }
      notice.textContent =
        said || model.get("problem") || (lease.live && lease.possible_hours <= 0 ? lease.limited_by || "" : "");
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
