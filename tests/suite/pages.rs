//! The web pages as a browser without JavaScript gets them, and the files that they load.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, Request, header};
use register_ticket_api::pages::{ASSETS, ASSETS_PATH, LANGUAGES, qr};
use register_ticket_api::totp::{PERIOD, PageToken};
use serde_json::{Value, json};

use crate::client::{Client, Reply};
use crate::service::{Service, Ticket, assert_members};

on_both_databases! {
    a_link_shows_its_ticket_with_the_code_of_the_moment,
    a_page_says_where_and_from_when_and_what_the_ticket_is,
    what_people_wrote_is_text,
    a_used_ticket_says_when_and_where,
    a_revoked_ticket_shows_nothing_that_makes_a_code,
    a_reissue_and_a_transfer_kill_the_link,
    what_is_no_link_is_a_page_that_says_so,
    an_outage_is_a_page_that_asks_again,
    with_another_secret_no_link_is_called_dead,
    a_phone_keeps_a_ticket_like_an_app,
    the_headers_of_every_page_and_file,
    https_is_for_every_answer,
    an_address_with_a_slash_too_many_leads_to_its_page,
    a_person_is_refused_by_a_page_and_a_program_by_a_problem,
}

const HOME: &str = "/";
const GATE: &str = "/gate";
const ORGANIZER: &str = "/organizer";

/// A ticket of an event in Madrid, and the path of its link.
async fn ticket(service: &Service) -> (Ticket, String) {
    let event = json!({
        "slug": "fair", "name": "Feria de Mayo", "time_zone": "Europe/Madrid", "starts_at": "2026-05-01T19:30:00Z",
    });
    service.event(event).await;
    service.seat("fair", "A1", "North").await;
    register(service, json!({ "username": "ana", "full_name": "Ana Ruiz" }), "A1", "North").await
}

/// Registers a new user for a seat of that event.
async fn register(service: &Service, user: Value, seat: &str, gate: &str) -> (Ticket, String) {
    service.organizer.post("/api/users", user.clone()).await.is(201);
    let path = format!("/api/users/{}/tickets", user["username"].as_str().expect("a name"));
    let seat = json!({ "event": "fair", "seat": seat, "gate": gate });
    provisioned(&service.organizer.post(path, seat).await.is(201))
}

fn provisioned(answer: &Value) -> (Ticket, String) {
    let url = answer["provisioning"]["ticket_url"].as_str().expect("a link");
    (Ticket::new(answer), url.strip_prefix("http://localhost:8080").expect("it is on this service").to_owned())
}

async fn get_in(language: &str, client: &Client, path: &str) -> Reply {
    client.send(Request::get(path).header(header::ACCEPT_LANGUAGE, language), Vec::new()).await
}

/// Returns a page's HTML; the answer must have this status.
#[track_caller]
fn html(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert!(!reply.text().contains("{{"), "a name is not filled");
    reply.text()
}

/// Returns an attribute of the page's first ticket.
#[track_caller]
fn told<'a>(page: &'a str, attribute: &str) -> &'a str {
    let main = page.split_once("<div class=\"ticket\"").and_then(|(_, rest)| rest.split_once('>')).expect("a ticket").0;
    let value = main.split_once(&format!(" {attribute}=\"")).and_then(|(_, rest)| rest.split_once('"'));
    value.unwrap_or_else(|| panic!("no {attribute} in {main}")).0
}

async fn a_link_shows_its_ticket_with_the_code_of_the_moment(service: Service) {
    let (ticket, path) = ticket(&service).await;
    service.clock.advance(11_500);
    let page = html(&service.anonymous.get(&path).await, 200);
    for text in ["Feria de Mayo", "A1", "North", "Ana Ruiz"] {
        assert!(page.contains(&format!(">{text}<")), "{text}");
    }
    // 21:30 in Madrid.
    assert!(page.contains("1 May 2026, 21:30"), "{page}");
    assert_eq!(told(&page, "data-status"), "valid");
    assert_eq!(told(&page, "data-inside"), "false");
    assert_eq!(told(&page, "data-used-at"), "");
    assert_eq!(told(&page, "data-time-zone"), "Europe/Madrid");
    assert_eq!(told(&page, "data-key"), ticket.secret());
    assert!(ticket.qr(service.now()).starts_with(&format!("RT1.{}.", told(&page, "data-ticket"))));
    assert!(page.contains(&format!(">{}<", ticket.code(service.now()))));
    assert!(page.contains(&qr(&ticket.qr(service.now()))), "the QR code is not this ticket's of this moment");
    // Without JavaScript it reloads one second after the code has changed.
    assert!(page.contains("<noscript><meta http-equiv=\"refresh\" content=\"20\"></noscript>"), "{page}");

    service.clock.advance(PERIOD * 1_000);
    let next = html(&service.anonymous.get(&path).await, 200);
    assert!(next.contains(&qr(&ticket.qr(service.now()))) && !next.contains(&qr(&ticket.qr(service.moment(-30_000)))));
    // The URI from which an authenticator app takes the key, as at registration.
    assert!(next.contains(&format!("secret={}&amp;issuer=Feria%20de%20Mayo&amp;", ticket.secret())), "{next}");

    let spanish = get_in("es-419, en;q=0.5", &service.anonymous, &path).await;
    assert_eq!(spanish.header("content-language"), "es");
    assert!(html(&spanish, 200).contains("<html lang=\"es\">"));
}

async fn a_page_says_where_and_from_when_and_what_the_ticket_is(service: Service) {
    let (_, path) = ticket(&service).await;
    let bare = html(&service.anonymous.get(&path).await, 200);
    for field in ["doors", "location", "category", "validity"] {
        let empty =
            |end: &str| bare.split(&format!("data-field=\"{field}\"")).nth(1).is_some_and(|rest| rest.contains(end));
        assert!(empty("></p>"), "{field}");
    }
    let change = json!({
        "location": "Plaza <Mayor>, 1", "opens_at": "2026-05-01T18:00:00Z", "category_colours": { "under 12": "teal" },
    });
    service.organizer.patch("/api/events/fair", change).await.is(200);
    let list = "seat,gate,username,category,valid_from,valid_until\n\
                B1,North,luis,Under 12,2026-05-01T18:30:00Z,2026-05-02T21:59:00Z\n";
    service.organizer.post_csv("/api/events/fair/tickets", list).await.is(201);
    let found = service.organizer.get("/api/events/fair/tickets?q=luis").await.is(200);
    let link = format!("/api/tickets/{}/link", found["tickets"][0]["ticket_id"].as_str().expect("an id"));
    let link = service.organizer.get(link).await.is(200);
    let path = link["ticket_url"].as_str().and_then(|url| url.strip_prefix("http://localhost:8080")).expect("a link");
    for (language, told) in [
        ("en", ["Doors open: 20:00", "Valid from: Fri 1 May 2026, 20:30 · Valid until: Sat 2 May 2026, 23:59"]),
        (
            "es",
            ["Apertura de puertas: 20:00", "Válida desde: vie 1 may 2026, 20:30 · Válida hasta: sáb 2 may 2026, 23:59"],
        ),
    ] {
        let page = html(&get_in(language, &service.anonymous, path).await, 200);
        for text in told.iter().chain(&["Plaza &lt;Mayor&gt;, 1", "Under 12"]) {
            assert!(page.contains(&format!(">{text}<")), "{text}: {page}");
        }
        assert!(page.contains("data-colour=\"teal\""), "{page}");
    }
    // If the doors open on another day than the start, the day is shown.
    service.organizer.patch("/api/events/fair", json!({ "opens_at": "2026-04-30T18:00:00Z" })).await.is(200);
    assert!(html(&service.anonymous.get(path).await, 200).contains(">Doors open: Thu 30 Apr 2026, 20:00<"));
}

async fn what_people_wrote_is_text(service: Service) {
    let hostile = r#"<img src=x onerror="alert('1')"> </script>&lt;{{key}}"#;
    let escaped = "&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt; &lt;/script&gt;&amp;lt;{{key}}";
    let turned = "\u{202e}\u{2066}Ana\u{200f}";
    let long = "ß".repeat(200);
    let (seat, gate) = ("\"><b>'&", "<u>'\"");
    let event = |name: &str| json!({ "slug": "fair", "name": name, "time_zone": "Europe/Madrid" });
    service.event(event(hostile)).await;
    for (number, name) in [hostile, turned, &long].into_iter().enumerate() {
        let seat = format!("{seat}{number}");
        service.seat("fair", &seat, gate).await;
        let user = json!({ "username": format!("user-{number}"), "full_name": name });
        let (ticket, path) = register(&service, user, &seat, gate).await;
        let entry = json!({ "scan_id": uuid::Uuid::now_v7(), "code": ticket.qr(service.now()) });
        service.organizer.post("/api/events/fair/scans", entry).await.is_scan(200, "accepted");
        let reply = service.anonymous.get(&path).await;
        assert_eq!(reply.status, 200);
        let page = reply.text();
        assert!(page.contains(escaped), "{page}");
        assert!(page.contains(&name.replace(hostile, escaped)), "{name}");
        for tag in ["<img", "<b>", "<u>", "onerror=\""] {
            assert!(!page.contains(tag), "{tag} in {page}");
        }
        assert_eq!(told(&page, "data-used-gate"), "&lt;u&gt;&#39;&quot;");
        // The longest name still has a page, but no QR code can hold it.
        service.organizer.patch("/api/events/fair", json!({ "name": "😀".repeat(200) })).await.is(200);
        assert_eq!(service.anonymous.get(&path).await.text().matches("class=\"qr\"").count(), 1);
        service.organizer.patch("/api/events/fair", json!({ "name": hostile })).await.is(200);
    }
}

async fn a_used_ticket_says_when_and_where(service: Service) {
    let (ticket, path) = ticket(&service).await;
    let entry = json!({ "scan_id": uuid::Uuid::now_v7(), "code": ticket.qr(service.now()), "at_gate": "North" });
    service.organizer.post("/api/events/fair/scans", entry.clone()).await.is_scan(200, "accepted");
    let page = html(&service.anonymous.get(&path).await, 200);
    assert_eq!(told(&page, "data-status"), "used");
    assert_eq!(told(&page, "data-inside"), "true");
    assert_eq!(told(&page, "data-used-at"), "2026-05-01T18:00:00.000Z");
    assert_eq!(told(&page, "data-used-gate"), "North");
    assert!(page.contains("1 May 2026, 20:00"), "not by the event's clock: {page}");
    let spanish = html(&get_in("es", &service.anonymous, &path).await, 200);
    assert!(spanish.contains("1 may 2026, 20:00"), "{spanish}");

    let undo = format!("/api/scans/{}/undo", entry["scan_id"].as_str().expect("an id"));
    service.organizer.bare(Method::POST, undo).await.is(200);
    let page = html(&service.anonymous.get(&path).await, 200);
    assert_eq!(told(&page, "data-status"), "valid");
    assert_eq!(told(&page, "data-used-at"), "");
    assert_eq!(told(&page, "data-used-gate"), "");
}

async fn a_revoked_ticket_shows_nothing_that_makes_a_code(service: Service) {
    let (ticket, path) = ticket(&service).await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    let page = html(&service.anonymous.get(&path).await, 200);
    assert_eq!(told(&page, "data-status"), "revoked");
    assert_eq!(told(&page, "data-key"), "");
    for secret in [&ticket.secret(), &ticket.code(service.now()), "class=\"qr\"", "otpauth://"] {
        assert!(!page.contains(secret), "{secret} in {page}");
    }
}

async fn a_reissue_and_a_transfer_kill_the_link(service: Service) {
    let (ticket, first) = ticket(&service).await;
    service.user("luis").await;
    let change = format!("/api/tickets/{}", ticket.ticket_id);
    let (_, second) = provisioned(&service.organizer.bare(Method::POST, format!("{change}/reissue")).await.is(200));
    let moved = service.organizer.post(format!("{change}/transfer"), json!({ "username": "luis" })).await.is(200);
    let (_, third) = provisioned(&moved);
    for dead in [&first, &second] {
        html(&service.anonymous.get(dead).await, 404);
        service.anonymous.get(format!("{dead}/app.webmanifest")).await.is_refused(404, "ticket_not_found");
    }
    let page = html(&service.anonymous.get(&third).await, 200);
    assert!(page.contains("luis") && !page.contains("Ana Ruiz"), "{page}");
}

async fn what_is_no_link_is_a_page_that_says_so(service: Service) {
    let (_, path) = ticket(&service).await;
    let other = path.replace("/t/", "").chars().rev().collect::<String>();
    let short = &path[..path.len() - 1];
    let unknown = format!("/t/{}", "A".repeat(43));
    for language in &LANGUAGES {
        for path in [short, &unknown, &format!("/t/{other}"), "/t/%00", "/t/%ff", "/t/x"] {
            let reply = service.unchanged(get_in(language.tag, &service.anonymous, path)).await;
            assert!(html(&reply, 404).contains(&language.render("<h1>{{gone.title}}</h1>", &[])), "{path}");
            assert_eq!(reply.header("cache-control"), "no-store");
        }
    }
    // A malformed one is not even looked up.
    let nowhere = service.another(&[("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none")]).anonymous;
    html(&nowhere.get(short).await, 404);
    html(&nowhere.get(&unknown).await, 503);
    // In the other half of a link, every bit counts.
    let token = path.trim_start_matches("/t/");
    for place in 22..token.len() {
        let mut altered = token.to_owned();
        altered.replace_range(place..=place, if &token[place..=place] == "A" { "B" } else { "A" });
        if PageToken::parse(&altered).is_some() {
            html(&service.anonymous.get(format!("/t/{altered}")).await, 404);
        }
    }
}

async fn an_outage_is_a_page_that_asks_again(service: Service) {
    let (_, path) = ticket(&service).await;
    let nowhere = service.another(&[("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none")]).anonymous;
    for language in &LANGUAGES {
        let reply = get_in(language.tag, &nowhere, &path).await;
        let page = html(&reply, 503);
        assert!(page.contains(&language.render("<h1>{{away.title}}</h1>", &[])), "{page}");
        assert!(page.contains("<meta http-equiv=\"refresh\" content=\"5\">"), "{page}");
        assert_eq!(reply.header("retry-after"), "5");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert!(!page.contains("127.0.0.1"), "a cause is for the log alone");
    }
    // Pages that need no database are served.
    for path in [HOME, GATE, ORGANIZER] {
        html(&nowhere.get(path).await, 200);
    }
}

async fn with_another_secret_no_link_is_called_dead(service: Service) {
    let secret = |text: &'static str| [("TICKET_SECRET", text)];
    let service = service.another(&secret("the first secret of the test suite"));
    let (_, path) = ticket(&service).await;
    html(&service.anonymous.get(&path).await, 200);
    let other = service.another(&secret("another secret of the test suite"));
    let reply = other.anonymous.get(&path).await;
    html(&reply, 503);
    assert_eq!(reply.header("retry-after"), "60");
}

async fn a_phone_keeps_a_ticket_like_an_app(service: Service) {
    let (_, path) = ticket(&service).await;
    let page = html(&service.anonymous.get(&path).await, 200);
    let link = format!("{path}/app.webmanifest");
    assert!(page.contains(&format!("<link rel=\"manifest\" href=\"{link}\">")), "{page}");
    let reply = service.anonymous.get(link).await;
    let manifest = reply.is(200);
    assert_eq!(reply.header("content-type"), "application/manifest+json");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_members(&manifest, json!({ "start_url": path, "display": "standalone" }));
    assert_eq!(manifest["display_override"], json!(["browser"]), "no package from Google, and no link sent to it");
    assert_eq!(manifest["name"], "Feria de Mayo · A1");
    for icon in manifest["icons"].as_array().expect("icons") {
        let reply = service.anonymous.get(icon["src"].as_str().expect("an address")).await;
        assert_eq!(reply.status, 200, "{icon}");
        assert_eq!(reply.header("content-type"), icon["type"], "{icon}");
    }
}

/// Headers that differ between pages and files.
struct Headers<'a> {
    path: &'a str,
    camera: &'static str,
    vary: &'static str,
    cache: &'static str,
}

async fn the_headers_of_every_page_and_file(service: Service) {
    let (_, link) = ticket(&service).await;
    let style = format!("{ASSETS_PATH}/shared/base.css");
    let (no_camera, camera) = ("camera=(), ", "camera=(self), ");
    let rest = "display-capture=(), geolocation=(), microphone=(), screen-wake-lock=(self)";
    let language = "accept-language, accept-encoding";
    let coding = "accept-encoding";
    let for_ever = "public, max-age=31536000, immutable";
    for Headers { path, camera, vary, cache } in [
        Headers { path: HOME, camera: no_camera, vary: language, cache: "no-cache" },
        Headers { path: ORGANIZER, camera: no_camera, vary: language, cache: "no-cache" },
        Headers { path: GATE, camera, vary: language, cache: "no-cache" },
        Headers { path: "/worker.js", camera: no_camera, vary: coding, cache: "no-cache" },
        Headers { path: &style, camera: no_camera, vary: coding, cache: for_ever },
        Headers { path: &link, camera: no_camera, vary: language, cache: "no-store" },
        Headers { path: "/t/dead", camera: no_camera, vary: language, cache: "no-store" },
    ] {
        let reply = service.anonymous.get(path).await;
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                 manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
            ("referrer-policy", "no-referrer"),
            ("permissions-policy", &format!("{camera}{rest}")),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-robots-tag", if path.starts_with("/t/") { "noindex" } else { "" }),
            ("vary", vary),
            ("cache-control", cache),
            ("strict-transport-security", ""),
            ("set-cookie", ""),
        ] {
            assert_eq!(reply.header(name), value, "{name} of {path}");
        }
        let head = service.anonymous.bare(Method::HEAD, path).await;
        assert_eq!(head.status, reply.status, "{path}");
        assert_eq!(head.headers, reply.headers, "{path}");
        assert!(head.body.is_empty(), "{path}");
    }
}

async fn https_is_for_every_answer(service: Service) {
    let safe = service.another(&[("PUBLIC_URL", "https://tickets.example.org")]);
    for path in [HOME, "/t/dead", "/health", "/api/events", "/none", "/assets/0/none"] {
        let reply = safe.anonymous.get(path).await;
        assert_eq!(reply.header("strict-transport-security"), "max-age=31536000", "{path}");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin", "{path}");
        assert_eq!(service.anonymous.get(path).await.header("strict-transport-security"), "", "{path}");
    }
}

async fn an_address_with_a_slash_too_many_leads_to_its_page(service: Service) {
    let (_, link) = ticket(&service).await;
    for page in [GATE, ORGANIZER, &link, "/t/dead"] {
        for (query, method) in [("", Method::GET), ("?a=1&b=%2f", Method::GET), ("", Method::HEAD)] {
            let reply = service.anonymous.bare(method, format!("{page}/{query}")).await;
            assert_eq!(reply.status, 308, "{page}/");
            assert_eq!(reply.header("location"), format!("{page}{query}"));
            assert!(reply.body.is_empty());
        }
    }
    for path in ["//", "/gate//", "//gate", "/organizer/x/", "/api/events/", "/t/"] {
        service.organizer.get(path).await.is_refused(404, "not_found");
    }
}

/// Opens an address as a browser does.
async fn open(language: &str, client: &Client, method: Method, path: &str) -> Reply {
    let request = Request::builder().method(method).uri(path).header(header::ACCEPT_LANGUAGE, language);
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    client.send(request.header(header::ACCEPT, accept), Vec::new()).await
}

async fn a_person_is_refused_by_a_page_and_a_program_by_a_problem(service: Service) {
    let (nothing, refused) = (("nothing.title", "nothing.why"), ("refused.title", "refused.why"));
    for (path, status, code, (title, why)) in [
        ("/none", 404, "not_found", nothing),
        ("/organizer/tickets", 404, "not_found", nothing),
        ("/api/nothing", 404, "not_found", nothing),
        ("/assets/0/none.css", 404, "not_found", nothing),
        ("/t/dead/app.webmanifest", 404, "ticket_not_found", nothing),
        ("/api/enrol", 405, "method_not_allowed", refused),
        ("/api/events", 401, "unauthenticated", refused),
    ] {
        let problem = service.anonymous.get(path).await;
        problem.is_refused(status, code);
        for language in &LANGUAGES {
            let reply = open(language.tag, &service.anonymous, Method::GET, path).await;
            let page = html(&reply, status);
            for text in [format!("<h1>{{{{{title}}}}}</h1>"), format!("<p>{{{{{why}}}}}</p>")] {
                assert!(page.contains(&language.render(&text, &[])), "{path}: {page}");
            }
            assert_eq!(reply.header("vary"), "accept, accept-language, accept-encoding");
            assert_eq!(reply.header("cache-control"), "no-store");
            for name in ["allow", "www-authenticate"] {
                assert_eq!(reply.header(name), problem.header(name), "{name} of {path}");
            }
            let head = open(language.tag, &service.anonymous, Method::HEAD, path).await;
            assert_eq!((head.status, &head.headers), (reply.status, &reply.headers), "{path}");
        }
        // Anything but opening an address is a program's request.
        if status != 405 {
            let reply = open("en", &service.anonymous, Method::DELETE, path).await;
            assert_eq!(reply.header("content-type"), "application/problem+json", "{path}");
        }
    }
    let nowhere = service.another(&[("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none")]);
    let reply = open("es", &nowhere.organizer, Method::GET, "/api/events").await;
    assert!(html(&reply, 503).contains("<meta http-equiv=\"refresh\""));
}

/// A service whose database is never needed.
async fn service() -> Service {
    Service::start(crate::database::Kind::Sqlite).await
}

#[tokio::test]
async fn every_file_has_its_type_and_both_codings() {
    let service = service().await;
    for asset in ASSETS {
        let path = format!("{ASSETS_PATH}/{}", asset.name);
        let media_type = match asset.name.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            "png" => "image/png",
            "webmanifest" => "application/manifest+json",
            // The licence of vendored code.
            _ => "text/plain; charset=utf-8",
        };
        let plain = service.anonymous.get(&path).await;
        let zipped = get_coded(&service.anonymous, &path, "en", "gzip, deflate, br;q=0").await;
        let smallest = get_coded(&service.anonymous, &path, "en", CODINGS).await;
        for (reply, coding) in [(&plain, ""), (&zipped, "gzip"), (&smallest, "br")] {
            assert_eq!(reply.status, 200, "{path}");
            assert_eq!(reply.header("content-encoding"), coding, "{path}");
            assert_eq!(reply.header("content-type"), media_type, "{path}");
        }
        assert_eq!(plain.body, zipped.body, "{path}");
        assert_eq!(plain.body, smallest.body, "{path}");
        assert_eq!([zipped.sent_bytes, smallest.sent_bytes], [asset.gzip.len(), asset.brotli.len()], "{path}");
    }
}

/// The encodings that browsers accept over TLS.
const CODINGS: &str = "gzip, deflate, br, zstd";

async fn get_coded(client: &Client, path: &str, language: &str, codings: &str) -> Reply {
    let request = Request::get(path).header(header::ACCEPT_ENCODING, codings);
    client.send(request.header(header::ACCEPT_LANGUAGE, language), Vec::new()).await
}

#[tokio::test]
async fn what_is_no_file_of_this_release_is_not_found() {
    let service = service().await;
    let version = ASSETS_PATH.trim_start_matches("/assets/");
    for path in [
        "/assets/0000000000000000/shared/base.css".to_owned(),
        "/assets/shared/base.css".to_owned(),
        format!("/assets/{version}"),
        format!("/assets/{version}/"),
        format!("/assets/{version}/none.css"),
        format!("/assets/{version}/shared/BASE.CSS"),
        format!("/assets/{version}/shared/base.css/"),
        format!("/assets/{version}/shared//base.css"),
        format!("/assets/{version}/shared/vendor"),
        format!("/assets/{version}/shared/vendor/../base.css"),
        format!("/assets/{version}/ticket/ticket.html"),
        format!("/assets/{version}/%2e%2e/home.html"),
        format!("/assets/{version}0/shared/base.css"),
    ] {
        service.anonymous.get(&path).await.is_refused(404, "not_found");
    }
}

/// A page with everything it loads, by address, decompressed, and the number of bytes transferred.
struct Loaded {
    files: BTreeMap<String, String>,
    bytes: usize,
}

/// Loads a page as a browser that runs every line of it would.
async fn load(client: &Client, page: &str, language: &str) -> Loaded {
    let mut loaded = Loaded { files: BTreeMap::new(), bytes: 0 };
    let mut wanted = BTreeSet::from([page.to_owned()]);
    while let Some(path) = wanted.pop_first() {
        let reply = get_coded(client, &path, language, CODINGS).await;
        assert_eq!(reply.status, 200, "{page} loads {path}");
        loaded.bytes += reply.sent_bytes;
        let text = reply.text();
        // Everything in quotes or parentheses that looks like an address, in any of the languages.
        for part in text.split(['"', '\'', '`', '(', ')']) {
            let ending = part.rsplit_once('.').map_or("", |(_, ending)| ending);
            let is_file = ["js", "css", "svg", "png", "webmanifest"].contains(&ending)
                && !part.contains(|character: char| character.is_whitespace() || "{}$*,;<>".contains(character));
            let is_relative = part.starts_with("./") || part.starts_with("../") || path.ends_with(".webmanifest");
            if is_file && (part.starts_with('/') || is_relative) {
                wanted.insert(resolved(&path, part));
            }
        }
        loaded.files.insert(path, text);
        wanted.retain(|path| !loaded.files.contains_key(path));
    }
    loaded
}

/// Resolves a reference in a file to a path.
fn resolved(base: &str, reference: &str) -> String {
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let mut steps: Vec<&str> = base.split('/').collect();
    steps.pop();
    for step in reference.split('/') {
        match step {
            "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps.join("/")
}

#[tokio::test]
async fn a_page_with_all_it_loads_is_small_and_lacks_no_text() {
    const MOST: usize = 75_000;
    // A phone at a door may load it over a poor network.
    const MOST_OF_A_TICKET: usize = 40_000;
    let service = service().await;
    let (_, link) = ticket(&service).await;
    let pages = [HOME, ORGANIZER, GATE, &link];
    let tags = LANGUAGES.each_ref().map(|language| language.tag);
    for (page, language) in pages.into_iter().flat_map(|page| tags.map(|tag| (page, tag))) {
        let loaded = load(&service.anonymous, page, language).await;
        println!("{page}, {language}: {} bytes in {} files", loaded.bytes, loaded.files.len());
        assert!(loaded.files.len() > 2, "{page} loads nothing");
        let most = if page == link { MOST_OF_A_TICKET } else { MOST };
        assert!(loaded.bytes <= most, "{page}: {} bytes; {:?}", loaded.bytes, loaded.files.keys());

        let html = &loaded.files[page];
        // A page that works offline is stored with the files that it names.
        if [GATE, &link].contains(&page) {
            let scripts = loaded
                .files
                .keys()
                .filter(|path| path.starts_with("/assets/") && (path.ends_with(".js") || path.ends_with(".css")));
            for path in scripts {
                assert!(html.contains(&format!("\"{path}\"")), "{page} loads {path}, and names it in no <link>");
            }
        }
        let texts = html.split_once("id=\"texts\">").and_then(|(_, rest)| rest.split_once("</script>"));
        let texts: BTreeMap<String, String> =
            texts.map(|(json, _)| serde_json::from_str(json).expect("texts are JSON")).unwrap_or_default();
        for (path, script) in loaded.files.iter().filter(|(path, _)| path.ends_with(".js")) {
            for name in script.split("text(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)) {
                // Unlike `getContext("2d")`.
                let is_there = !name.contains('.') || texts.contains_key(name);
                assert!(is_there, "{page} has no text `{name}`, which {path} asks for");
            }
        }
        // Nothing is loaded from elsewhere, and only the texts are inline.
        for forbidden in ["<style", " style=\"", " onclick=", "javascript:", "src=\"http", "href=\"http"] {
            assert!(!html.contains(forbidden), "{forbidden} in {page}");
        }
        assert_eq!(
            html.matches("<script").count(),
            html.matches(" src=\"").count() + html.matches("id=\"texts\"").count()
        );
    }
}
