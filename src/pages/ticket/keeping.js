// How this browser keeps the ticket for when there is no network: whoever stands at a door learns it too late.

import { keepOffline } from "../shared/offline.js";

/** The browsers within other apps. What they keep is not there in the phone's own; on an iPhone they name no Safari. */
const IN_APP = /; wv\)|FBA[NV]\/|FB_IAB|Instagram|WhatsApp|Line\/|Snapchat|Twitter|TikTok|BytedanceWebview|LinkedInApp|GSA\/|iP(hone|ad|od)(?!.*Safari\/)/;

const isOnHomeScreen = () => navigator.standalone === true || matchMedia("(display-mode: standalone)").matches;

/**
 * Has the page kept, and resolves to how it is: `firmly`; `loosely`, where the browser may delete it, as Safari does after seven days
 * without a visit; only `in_app`, where the phone's own browser does not find it; or `not`.
 */
export async function keeping() {
  const isKept = (await keepOffline()) && Boolean(navigator.serviceWorker.controller);
  if (isOnHomeScreen()) return isKept ? "firmly" : "not";
  if (IN_APP.test(navigator.userAgent)) return "in_app";
  if (!isKept) return "not";
  return (await isPersistent()) ? "firmly" : "loosely";
}

/** Whether the browser promises never to delete it. Firefox would ask its user for that, who has other things to do. */
async function isPersistent() {
  try {
    const { storage, userAgent } = navigator;
    return (await storage.persisted()) || (!userAgent.includes("Firefox/") && (await storage.persist()));
  } catch {
    return false;
  }
}
