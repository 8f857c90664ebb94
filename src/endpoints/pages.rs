//! The web pages and the files that they load.

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::error::Error;
use crate::links::otpauth_url;
use crate::model::{Millis, Reentry, Status, Ticket};
use crate::pages::{ASSETS_PATH, Asset, Language, qr};
use crate::request::Call;
use crate::response::{self, BROTLI, Response, accepts};
use crate::store::TicketPage;
use crate::totp::{Code, HolderToken, LinkSecret, PERIOD, PageToken, QrCode, step_at};
use crate::wallet;

/// The Content-Security-Policy: pages load from and connect to this service only. The files have it too, because a worker gets
/// its policy from its own file.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
/// The device features that a page may use. Only the gate's page gets the camera.
const NO_CAMERA: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), screen-wake-lock=(self)";
const CAMERA: &str = "camera=(self), display-capture=(), geolocation=(), microphone=(), screen-wake-lock=(self)";
const PERMISSIONS_POLICY: &str = "permissions-policy";

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Seconds after which a page that could not be rendered retries.
const ASK_AGAIN: u32 = 5;

/// `GET /`.
pub async fn show_home(call: Call<'_>) -> Result<Response, Error> {
    page(call.parts, StatusCode::OK, include_str!("../pages/home.html"), &[])
}

/// `GET /gate`.
pub async fn show_gate(call: Call<'_>) -> Result<Response, Error> {
    let mut response = page(call.parts, StatusCode::OK, include_str!("../pages/gate/gate.html"), &[])?;
    set(&mut response, &[(PERMISSIONS_POLICY, CAMERA)]);
    Ok(response)
}

/// `GET /gate/`, and every page's address with a trailing slash: redirects to the address without it. Routes are fixed paths, so
/// the redirect cannot lead to another host.
pub async fn drop_slash(call: Call<'_>) -> Result<Response, Error> {
    let uri = &call.parts.uri;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let address = format!("{}{query}", uri.path().trim_end_matches('/'));
    redirect(StatusCode::PERMANENT_REDIRECT, &address)
}

fn redirect(status: StatusCode, address: &str) -> Result<Response, Error> {
    let mut response = response::no_content();
    *response.status_mut() = status;
    let address = HeaderValue::from_str(address).map_err(|error| Error::Internal(error.to_string()))?;
    response.headers_mut().insert(header::LOCATION, address);
    Ok(response)
}

/// `GET /organizer`.
pub async fn show_organizer(call: Call<'_>) -> Result<Response, Error> {
    page(call.parts, StatusCode::OK, include_str!("../pages/organizer/organizer.html"), &[])
}

/// `GET /t/{token}`: shows a ticket, or all tickets of one person, to anyone who has the link.
pub async fn show_ticket(call: Call<'_>) -> Result<Response, Error> {
    let (found, secret) = find_tickets(&call).await?;
    let language = Language::of(&call.parts.headers);
    let step = step_at(call.now);
    let database = found.first().and_then(|read| read.kept.database());
    let mut values = vec![
        ("refresh", ((step + 1) * PERIOD + 1 - call.now.0 / Millis::SECOND).to_string()),
        ("manifest", format!("{}/app.webmanifest", ticket_path(&call))),
        ("database", database.map(|id| id.to_string()).unwrap_or_default()),
    ];
    values.extend(found.first().map(|read| ("title", read.event_name.clone())));
    let mut each: Vec<_> = found.iter().map(|read| shown(read, secret, language, step)).collect();
    let wallet = call.app.settings.wallet.as_ref().map(|_| "true".to_owned()).unwrap_or_default();
    each.iter_mut().for_each(|values| values.push(("wallet", wallet.clone())));
    let html = language.render_each(include_str!("../pages/ticket/ticket.html"), &values, &each);
    let mut response = page_in(language, call.parts, StatusCode::OK, &html)?;
    set(&mut response, PRIVATE);
    if let Some(database) = database {
        response::name_database(&mut response, database);
    }
    Ok(response)
}

/// Returns the template values of one ticket.
fn shown(read: &TicketPage, secret: &LinkSecret, language: &Language, step: i64) -> Vec<(&'static str, String)> {
    let TicketPage { ticket, time_zone, .. } = read;
    let used_at = ticket.admitted_at(read.reentry);
    let mut values = vec![
        ("event", read.event_name.clone()),
        ("seat", ticket.seat.clone()),
        ("gate", ticket.gate.clone()),
        ("holder", ticket.full_name.clone().or_else(|| ticket.username.clone()).unwrap_or_default()),
        ("status", ticket.status.as_str().to_owned()),
        ("inside", ticket.inside.to_string()),
        ("reentry", read.reentry.as_str().to_owned()),
        ("starts", language.moment(read.starts_at, time_zone)),
        ("doors", language.with_time("result.too_early_doors", read.opens_at, read.starts_at, time_zone)),
        ("location", read.location.clone().unwrap_or_default()),
        ("category", ticket.category.clone().unwrap_or_default()),
        ("colour", ticket.category_colour().map(|colour| colour.as_str().to_owned()).unwrap_or_default()),
        ("validity", validity(language, ticket, time_zone)),
        ("used_at", used_at.map(|time| time.to_string()).unwrap_or_default()),
        ("used_when", language.moment(used_at, time_zone)),
        ("used_gate", read.first_used_gate.clone().unwrap_or_default()),
        ("time_zone", time_zone.clone()),
        ("ticket", BASE64URL_NOPAD.encode(ticket.ticket_id.as_bytes())),
        ("alone", format!("/t/{}", secret.page_token(ticket.ticket_id, ticket.seed))),
    ];
    // A revoked ticket's page contains no key.
    let codes = if ticket.status == Status::Revoked {
        Default::default()
    } else {
        let key = secret.codes.key_of(ticket.ticket_id, ticket.seed);
        let code = key.code(step);
        let shown = QrCode { ticket_id: ticket.ticket_id, code: Code::Rotating(code.clone()) };
        let otpauth = otpauth_url(&read.event_name, ticket, &key.base32());
        [code, qr(&shown.to_string()), qr(&otpauth), otpauth, key.base32()]
    };
    values.extend(["code", "qr", "otpauth_qr", "otpauth", "key"].into_iter().zip(codes));
    values
}

/// `GET /t/{token}/wallet`: redirects to Google with the ticket's pass, or back to the page if the ticket shows no code. The pass
/// contains the TOTP key, so it is created only on request.
pub async fn add_to_wallet(call: Call<'_>) -> Result<Response, Error> {
    let settings = &call.app.settings;
    let issuer = settings.wallet.as_ref().ok_or(Error::NotFound)?;
    let (found, secret) = find_tickets(&call).await?;
    // A link to several tickets has no pass; each ticket's own link has one.
    let [read] = &found[..] else { return Err(Error::TicketNotFound) };
    let ticket = &read.ticket;
    let shows_code = match ticket.status {
        Status::Valid => true,
        Status::Used => read.reentry != Reentry::None,
        Status::Revoked => false,
    };
    let address = if shows_code {
        let key = secret.codes.key_of(ticket.ticket_id, ticket.seed);
        wallet::link(issuer, read, &key, &settings.public_url, call.now)?
    } else {
        ticket_path(&call)
    };
    let mut response = redirect(StatusCode::SEE_OTHER, &address)?;
    set(&mut response, GUARDS);
    set(&mut response, PRIVATE);
    Ok(response)
}

/// Formats from when and until when a ticket admits; empty if it has no limits.
fn validity(language: &Language, ticket: &Ticket, time_zone: &str) -> String {
    let (from, until) = (ticket.valid_from, ticket.valid_until);
    let from_words = language.with_time("result.too_early_ticket", from, None, time_zone);
    let until_words = language.with_time("result.too_late_ticket", until, from, time_zone);
    [from_words, until_words].into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" · ")
}

/// `GET /t/{token}/app.webmanifest`: lets a phone install the ticket's page like an app.
pub async fn show_ticket_manifest(call: Call<'_>) -> Result<Response, Error> {
    let (found, _) = find_tickets(&call).await?;
    let read = found.first().ok_or(Error::TicketNotFound)?;
    let [name, short] = match &found[..] {
        [_] => [format!("{} · {}", read.event_name, read.ticket.seat), read.ticket.seat.clone()],
        _ => [read.event_name.clone(), read.event_name.clone()],
    };
    let page = ticket_path(&call);
    let icons = [192, 512].map(|size| {
        json!({
            "src": format!("{ASSETS_PATH}/shared/icon-{size}.png"),
            "sizes": format!("{size}x{size}"),
            "type": "image/png",
            "purpose": "any maskable",
        })
    });
    let manifest = json!({
        "name": name,
        "short_name": short,
        "id": page,
        "start_url": page,
        "scope": page,
        "display": "standalone",
        // On Android, a browser shortcut: Google builds the package of an installed app, and would learn the link.
        "display_override": ["browser"],
        "background_color": "#f5f6f8",
        "theme_color": "#16324f",
        "icons": icons,
    });
    let mut response = text(call.parts, StatusCode::OK, "application/manifest+json", &manifest.to_string())?;
    set(&mut response, PRIVATE);
    Ok(response)
}

fn ticket_path(call: &Call<'_>) -> String {
    format!("/t/{}", call.params.get("token").unwrap_or_default())
}

/// Returns the tickets whose page a token opens, at least one. A malformed token is rejected without a database query.
async fn find_tickets<'a>(call: &Call<'a>) -> Result<(Vec<TicketPage>, &'a LinkSecret), Error> {
    let token = call.params.get("token").unwrap_or_default();
    let store = call.app.store();
    // `checked_links` comes first: with another TICKET_SECRET every link would look dead.
    if let Some(token) = PageToken::parse(token) {
        let read = store.read_ticket_page(token.ticket_id).await?;
        let secret = call.app.checked_links(&read.kept)?;
        let found = if secret.opens(&token, read.ticket.seed) { Ok(read) } else { Err(read.kept.database()) };
        return found.map(|read| (vec![read], &**secret)).map_err(Error::DeadLink);
    }
    let token = HolderToken::parse(token).ok_or(Error::TicketNotFound)?;
    let mut held = store.read_held_pages(token.event_id, token.user_id).await?;
    let first = held.first().ok_or(Error::TicketNotFound)?;
    let (secret, database) = (call.app.checked_links(&first.kept)?, first.kept.database());
    // The link went to the address that the person had then; it is dead if that has changed.
    let opens = first.ticket.address.told_to(None).is_some_and(|address| secret.opens_all(&token, address));
    held.retain(|read| opens && secret.names(&token, read.ticket.ticket_id, read.ticket.seed));
    if held.is_empty() { Err(Error::DeadLink(database)) } else { Ok((held, &**secret)) }
}

/// Refuses a ticket's page with a page, because a person at a door is looking at it.
pub fn refuse_ticket(parts: &Parts, error: &Error) -> Response {
    let page = match error.status() {
        StatusCode::NOT_FOUND => {
            ticket_page(parts, StatusCode::NOT_FOUND, include_str!("../pages/ticket/gone.html"), &[])
        }
        status if status.is_server_error() => away_page(parts, error),
        _ => return refuse(parts, error),
    };
    page.unwrap_or_else(|error| response::problem(&error))
}

/// Refuses any other request: with a problem document or, if a person opened the address in a browser, with a page.
pub fn refuse(parts: &Parts, error: &Error) -> Response {
    let problem = response::problem(error);
    if !is_opened_by_a_person(parts) {
        return problem;
    }
    let page = match error.status() {
        status if status.is_server_error() => away_page(parts, error),
        status => {
            let (title, why) = match status {
                StatusCode::NOT_FOUND => ("nothing.title", "nothing.why"),
                _ => ("refused.title", "refused.why"),
            };
            let language = Language::of(&parts.headers);
            let values = [
                ("title", language.text(title).to_owned()),
                ("why", language.text(why).to_owned()),
                ("status", status.to_string()),
                ("detail", error.detail()),
            ];
            ticket_page(parts, status, include_str!("../pages/refused.html"), &values)
        }
    };
    let Ok(mut page) = page else { return problem };
    // Headers that belong to the status, such as the methods that a path accepts.
    for name in [header::ALLOW, header::WWW_AUTHENTICATE, header::RETRY_AFTER] {
        if let (Some(value), None) = (problem.headers().get(&name), page.headers().get(&name)) {
            page.headers_mut().insert(name, value.clone());
        }
    }
    page.headers_mut().insert(header::VARY, HeaderValue::from_static("accept, accept-language, accept-encoding"));
    page
}

/// Returns whether a browser opened the address: only then does it ask for HTML.
fn is_opened_by_a_person(parts: &Parts) -> bool {
    let accepted = parts.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    [Method::GET, Method::HEAD].contains(&parts.method) && accepted.into_iter().any(|list| list.contains("text/html"))
}

/// Returns a page that retries by itself.
fn away_page(parts: &Parts, error: &Error) -> Result<Response, Error> {
    let seconds = error.retry_after().unwrap_or_default().max(ASK_AGAIN);
    let values = [("retry", seconds.to_string())];
    let mut response = ticket_page(parts, error.status(), include_str!("../pages/ticket/away.html"), &values)?;
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    Ok(response)
}

/// `GET /worker.js`: the service worker of the pages that work without a network.
pub async fn show_worker(call: Call<'_>) -> Result<Response, Error> {
    text(call.parts, StatusCode::OK, JAVASCRIPT, include_str!("../pages/worker.js"))
}

/// `GET /assets/{version}/{*file}`. A file's address changes with its content, so caches may keep it for ever.
pub async fn show_asset(call: Call<'_>) -> Result<Response, Error> {
    let asset = call.parts.uri.path().strip_prefix(ASSETS_PATH).and_then(|path| Asset::find(path.strip_prefix('/')?));
    let asset = asset.ok_or(Error::NotFound)?;
    let mut response = if accepts(&call.parts.headers, header::ACCEPT_ENCODING, BROTLI) {
        let brotli = response::encoded(StatusCode::OK, asset.content_type(), asset.brotli.into(), Some(BROTLI));
        guarded(brotli)
    } else {
        file(call.parts, StatusCode::OK, asset.content_type(), asset.gzip.into())?
    };
    set(&mut response, &[("cache-control", "public, max-age=31536000, immutable")]);
    Ok(response)
}

/// Renders a page in the client's language.
fn page(parts: &Parts, status: StatusCode, template: &str, values: &[(&str, String)]) -> Result<Response, Error> {
    let language = Language::of(&parts.headers);
    page_in(language, parts, status, &language.render(template, values))
}

fn page_in(language: &Language, parts: &Parts, status: StatusCode, html: &str) -> Result<Response, Error> {
    let mut response = text(parts, status, HTML, html)?;
    set(&mut response, &[("content-language", language.tag), ("vary", "accept-language, accept-encoding")]);
    Ok(response)
}

/// Headers of responses that only the holder of a ticket's link may see: no caching, no indexing.
const PRIVATE: &[(&str, &str)] = &[("cache-control", "no-store"), ("x-robots-tag", "noindex")];

fn ticket_page(
    parts: &Parts,
    status: StatusCode,
    template: &str,
    values: &[(&str, String)],
) -> Result<Response, Error> {
    let mut response = page(parts, status, template, values)?;
    set(&mut response, PRIVATE);
    Ok(response)
}

/// Returns a text that caches must revalidate each time.
fn text(parts: &Parts, status: StatusCode, content_type: &'static str, text: &str) -> Result<Response, Error> {
    file(parts, status, content_type, response::gzip(text.as_bytes())?)
}

fn file(parts: &Parts, status: StatusCode, content_type: &'static str, gzip: Bytes) -> Result<Response, Error> {
    response::compressed(&parts.headers, status, content_type, gzip, response::gunzip).map(guarded)
}

fn guarded(mut response: Response) -> Response {
    set(&mut response, GUARDS);
    response
}

/// Headers of every page and file: nothing from elsewhere gets in, nothing gets out.
const GUARDS: &[(&str, &str)] = &[
    ("cache-control", "no-cache"),
    ("content-security-policy", POLICY),
    ("referrer-policy", "no-referrer"),
    (PERMISSIONS_POLICY, NO_CAMERA),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
];

fn set(response: &mut Response, headers: &[(&'static str, &'static str)]) {
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
}
