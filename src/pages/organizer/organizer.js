// The organizer's page: signing in, and which view is shown. The address is `#view/event`.

import { find } from "../shared/dom.js";
import { save } from "../shared/save.js";
import { explain, onSubmit, tell, wireDialogs } from "./form.js";
import * as board from "./board.js";
import * as check from "./check.js";
import * as events from "./events.js";
import * as gates from "./gates.js";
import * as imports from "./import.js";
import * as next from "./next.js";
import * as print from "./print.js";
import * as roll from "./roll.js";
import { download, here, session, signIn, signOut } from "./session.js";
import * as tickets from "./tickets.js";
import { isolated, text } from "../shared/text.js";

const views = { first: events.first, events, tickets, import: imports, print, list: roll, gates, board, check };
const signin = find("#signin");
let shown = null;
let eventShown = null;

/** Shows the view in the address, if it exists. */
async function route() {
  const [name, slug] = location.hash.slice(1).split("/");
  session.event = session.events.find((event) => event.slug === slug) ?? session.event;
  if (eventShown !== session.event.slug) empty();
  // An open dialog asks about what was shown before.
  if (eventShown && eventShown !== session.event.slug) closeDialogs();
  eventShown = session.event.slug;
  const view = Object.hasOwn(views, name) ? name : "board";
  const address = `#${view}/${session.event.slug}`;
  if (location.hash !== address) history.replaceState(null, "", address);
  if (shown !== view) views[shown]?.hide?.();
  for (const section of document.querySelectorAll("section[data-view]")) section.hidden = section.dataset.view !== view;
  const heading = find(`section[data-view="${view}"] h1`);
  document.title = `${heading.textContent} – ${session.event.name}`;
  fillBar(view);
  if (shown && shown !== view) {
    scrollTo(0, 0);
    heading.focus();
  }
  shown = view;
  next.show(view);
  try {
    await views[view].show();
  } catch (problem) {
    if (session.key) tell(explain(problem));
  }
}

/** Clears the views, so that no event's data appears under another's name or to the next user who signs in. */
function empty() {
  for (const old of document.querySelectorAll("section[data-view] :is(.list, tbody, #numbers, #chart)")) old.replaceChildren();
}

function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
}

/** Fills the bar, and shows it: an empty choice of events would be taken for "no events". */
function fillBar(view) {
  const choice = find("#event");
  choice.replaceChildren(...session.events.map((event) => new Option(isolated(event.name), event.slug)));
  choice.value = session.event.slug;
  for (const link of document.querySelectorAll("nav a, a[data-go]")) {
    link.href = `#${link.dataset.view ?? link.dataset.go}/${session.event.slug}`;
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  find("#bar").hidden = false;
}

async function enter() {
  // An empty board is no help before the first event. If the service is away, the board says so.
  if (/^(#board.*)?$/.test(location.hash) && (await events.isFirstMinute().catch(() => false))) {
    history.replaceState(null, "", `#first/${session.event.slug}`);
  }
  signin.hidden = true;
  await route();
}

function leave() {
  views[shown]?.hide?.();
  next.hide();
  shown = eventShown = null;
  empty();
  signOut();
  for (const section of document.querySelectorAll("section[data-view]")) section.hidden = true;
  closeDialogs();
  find("#bar").hidden = true;
  signin.hidden = false;
  document.title = find("h1", signin).textContent;
  find("#key").focus();
}

function start() {
  wireDialogs();
  session.onEnd = () => {
    leave();
    tell(text("problem.unauthenticated"));
  };
  onSubmit(find("form", signin), async ({ key }) => {
    await signIn(key.trim());
    find("#key").value = "";
    await enter();
  });
  find("#sign-out").onclick = leave;
  find("#event").onchange = ({ target }) => { location.hash = `#${shown}/${target.value}`; };
  addEventListener("hashchange", () => { if (session.event) route(); });
  for (const button of document.querySelectorAll("[data-download]")) button.onclick = () => keep(button);
  leave();
}

async function keep(button) {
  const name = button.dataset.download;
  button.disabled = true;
  try {
    save(await download(here(`/${name}`)), `${session.event.slug}-${name}`);
    tell(text("organizer.saved"));
  } catch (problem) {
    tell(explain(problem));
  } finally {
    button.disabled = false;
  }
}

start();
