// How this browser stores the ticket for use without a network: at the door it is too late to find out.

import { keepOffline } from "../shared/offline.js";

/** Browsers inside other apps. The phone's own browser does not see what they store; on an iPhone they do not name Safari. */
const IN_APP = /; wv\)|FBA[NV]\/|FB_IAB|Instagram|WhatsApp|Line\/|Snapchat|Twitter|TikTok|BytedanceWebview|LinkedInApp|GSA\/|iP(hone|ad|od)(?!.*Safari\/)/;

const isOnHomeScreen = () => navigator.standalone === true || matchMedia("(display-mode: standalone)").matches;

/**
 * Stores the page, and resolves to how well: `firmly`; `loosely`, if the browser may delete it, as Safari does after seven days
 * without a visit; only `in_app`, where the phone's own browser does not find it; or `not`.
 */
export async function keeping() {
  const isKept = (await keepOffline()) && Boolean(navigator.serviceWorker.controller);
  if (isOnHomeScreen()) return isKept ? "firmly" : "not";
  if (IN_APP.test(navigator.userAgent)) return "in_app";
  if (!isKept) return "not";
  return (await isPersistent()) ? "firmly" : "loosely";
}

/** Whether the browser promises never to delete it. Firefox is not asked, because it would ask its user. */
async function isPersistent() {
  try {
    const { storage, userAgent } = navigator;
    return (await storage.persisted()) || (!userAgent.includes("Firefox/") && (await storage.persist()));
  } catch {
    return false;
  }
}
