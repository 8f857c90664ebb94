//! Tickets as Google Wallet passes: what Google gets, and that its codes are ours. Google itself is not called.

use std::process::Command;

use data_encoding::BASE64URL_NOPAD;
use http::Method;
use register_ticket_api::wallet::LONGEST_LINK;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::Directory;
use crate::process::{Server, head};
use crate::service::{Service, Ticket, assert_members};

on_both_databases! {
    a_pass_is_signed_and_has_codes_that_admit,
    a_pass_says_what_the_ticket_says,
    a_link_is_short_whatever_people_wrote,
    a_pass_of_before_has_codes_that_no_longer_admit,
    what_shows_no_code_makes_no_pass,
    without_an_issuer_there_is_no_pass_and_no_word_of_it,
    nothing_of_a_pass_is_logged,
}

const ISSUER: &str = "3388000000022123456";
const EMAIL: &str = "tickets@a-project-with-a-name.iam.gserviceaccount.com";

/// A service account's key as Google issues it, created with OpenSSL.
pub struct Account {
    directory: Directory,
    json: String,
}

impl Account {
    pub fn new() -> Self {
        let account = Self { directory: Directory::new(), json: String::new() };
        account.openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"]);
        account.openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
        let key = std::fs::read_to_string(account.directory.0.join("key.pem")).expect("OpenSSL made it");
        let json = json!({ "type": "service_account", "client_email": EMAIL, "private_key": key });
        Self { json: json.to_string(), ..account }
    }

    fn openssl(&self, arguments: &[&str]) {
        let run = Command::new("openssl").args(arguments).current_dir(&self.directory.0).output();
        let run = run.expect("this test needs the program openssl, from the package of the same name");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }

    pub fn settings(&self) -> [(&str, &str); 2] {
        [("GOOGLE_WALLET_ISSUER_ID", ISSUER), ("GOOGLE_WALLET_KEY", &self.json)]
    }

    /// The claims of a link, whose signature OpenSSL verifies with this account's key.
    #[track_caller]
    fn claims(&self, link: &str) -> Value {
        let token = link.strip_prefix("https://pay.google.com/gp/v/save/").unwrap_or_else(|| panic!("{link}"));
        let (signed, signature) = token.rsplit_once('.').expect("a signature");
        let decoded = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64url without padding");
        self.directory.file("signed", signed);
        std::fs::write(self.directory.0.join("signature"), decoded(signature)).expect("a file");
        self.openssl(&["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "signed"]);
        let (head, claims) = signed.split_once('.').expect("a head");
        let head: Value = serde_json::from_slice(&decoded(head)).expect("JSON");
        assert_eq!(head, json!({ "alg": "RS256", "typ": "JWT" }));
        serde_json::from_slice(&decoded(claims)).expect("JSON")
    }
}

/// The path of a ticket's page.
async fn page_of(service: &Service, ticket_id: impl std::fmt::Display) -> String {
    let link = service.organizer.get(format!("/api/tickets/{ticket_id}/link")).await.is(200);
    link["ticket_url"].as_str().and_then(|url| url.strip_prefix("http://localhost:8080")).expect("a link").to_owned()
}

/// Presses the button of a ticket's page and returns the address it leads to.
async fn press(anonymous: &Client, page: &str) -> String {
    let reply = anonymous.get(format!("{page}/wallet")).await;
    assert_eq!(reply.status, 303, "{}", reply.text());
    for (name, value) in
        [("cache-control", "no-store"), ("referrer-policy", "no-referrer"), ("x-robots-tag", "noindex")]
    {
        assert_eq!(reply.header(name), value, "{name}");
    }
    assert!(reply.body.is_empty());
    reply.header("location").to_owned()
}

/// The text of a pass's QR code now, made by an independent program.
fn shown(claims: &Value, service: &Service) -> String {
    let barcode = &claims["payload"]["eventTicketObjects"][0]["rotatingBarcode"];
    let [key] = &barcode["totpDetails"]["parameters"].as_array().expect("a list")[..] else { panic!("{barcode}") };
    assert_eq!(barcode["totpDetails"]["algorithm"], "TOTP_SHA1");
    let oathtool = Command::new("oathtool")
        .arg("--totp=sha1")
        .arg(format!("--digits={}", key["valueLength"]))
        .arg(format!(
            "--time-step-size={}s",
            barcode["totpDetails"]["periodMillis"].as_str().and_then(|ms| ms.strip_suffix("000")).expect("ms")
        ))
        .arg(format!("--now=@{}", service.now().0 / 1_000))
        .arg(key["key"].as_str().expect("Base16"))
        .output()
        .expect("this test needs the program oathtool, from the package of the same name");
    assert!(oathtool.status.success(), "{}", String::from_utf8_lossy(&oathtool.stderr));
    let code = String::from_utf8(oathtool.stdout).expect("digits");
    barcode["valuePattern"].as_str().expect("a pattern").replace("{totp_value_0}", code.trim())
}

fn scan(code: &str) -> Value {
    json!({ "scan_id": uuid::Uuid::now_v7(), "code": code, "at_gate": "North" })
}

async fn a_pass_is_signed_and_has_codes_that_admit(service: Service) {
    let account = Account::new();
    let service = service.another(&account.settings());
    let ticket = service.ticket("A1").await;
    let page = page_of(&service, ticket.ticket_id).await;
    let html = service.anonymous.get(&page).await.text();
    assert!(html.contains(&format!("href=\"{page}/wallet\"")) && html.contains("data-wallet=\"true\""), "{html}");
    let claims = account.claims(&press(&service.anonymous, &page).await);
    assert_members(
        &claims,
        json!({ "iss": EMAIL, "aud": "google", "typ": "savetowallet", "iat": service.now().0 / 1_000, "origins": [] }),
    );
    let shown = shown(&claims, &service);
    assert_eq!(shown, ticket.qr(service.now()));
    let gate = service.gate().await;
    gate.post("/api/events/default/scans", scan(&shown)).await.is_scan(200, "accepted");
}

async fn a_pass_says_what_the_ticket_says(service: Service) {
    let account = Account::new();
    let file = account.directory.file("account.json", &account.json);
    let service =
        service.another(&[("GOOGLE_WALLET_ISSUER_ID", ISSUER), ("GOOGLE_WALLET_KEY", &file.display().to_string())]);
    let event = json!({
        "slug": "fair", "name": "Feria", "time_zone": "Europe/Madrid", "language": "es", "location": "Teatro, Plaza 1",
        "starts_at": "2026-05-01T19:30:00Z", "opens_at": "2026-05-01T18:00:00Z",
    });
    service.event(event).await;
    let list = "seat,gate,username,full_name,category\nA-1,Norte,ana,Ana Ruiz,VIP\n";
    service.organizer.post_csv("/api/events/fair/tickets", list).await.is(201);
    let found = service.organizer.get("/api/events/fair/tickets").await.is(200);
    let ticket_id = found["tickets"][0]["ticket_id"].as_str().expect("an id");
    let page = page_of(&service, ticket_id).await;
    let first = account.claims(&press(&service.anonymous, &page).await);
    let [class, object] = ["eventTicketClasses", "eventTicketObjects"].map(|name| &first["payload"][name][0]);
    let told = |text: &str| json!({ "defaultValue": { "language": "es", "value": text } });
    assert_members(
        class,
        json!({
            "issuerName": "localhost:8080",
            "reviewStatus": "UNDER_REVIEW",
            "eventName": told("Feria"),
            "dateTime": { "doorsOpen": "2026-05-01T20:00:00+02:00", "start": "2026-05-01T21:30:00+02:00" },
            "venue": { "name": told("Teatro"), "address": told("Teatro, Plaza 1") },
        }),
    );
    assert_members(
        object,
        json!({
            "classId": class["id"],
            "state": "ACTIVE",
            "seatInfo": { "seat": told("A-1"), "gate": told("Norte") },
            "ticketHolderName": "Ana Ruiz",
        }),
    );
    for id in [&class["id"], &object["id"]] {
        let suffix = id.as_str().and_then(|id| id.strip_prefix(&format!("{ISSUER}."))).expect("the issuer's");
        assert!(suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{suffix}");
    }
    // Google keeps the first version it gets, so a changed event gets another class. The ticket stays the same.
    service
        .organizer
        .patch("/api/events/fair", json!({ "starts_at": "2026-05-01T20:30:00Z", "location": null }))
        .await
        .is(200);
    let second = account.claims(&press(&service.anonymous, &page).await);
    assert_ne!(second["payload"]["eventTicketClasses"][0]["id"], class["id"]);
    assert_eq!(second["payload"]["eventTicketObjects"][0]["id"], object["id"]);
    // Now there is room for it.
    assert_eq!(second["payload"]["eventTicketObjects"][0]["ticketType"], told("VIP"));
}

async fn a_link_is_short_whatever_people_wrote(service: Service) {
    let account = Account::new();
    let service = service.another(&account.settings());
    for (number, text) in ["a".repeat(40), "ñ\"\\".repeat(13), "😀".repeat(40)].iter().enumerate() {
        let name = text.repeat(5).chars().take(200).collect::<String>();
        let slug = format!("fair-{number}");
        let event = json!({
            "slug": slug, "name": name, "location": name, "starts_at": "2026-05-01T19:30:00Z",
            "opens_at": "2026-05-01T18:00:00Z", "ends_at": "2026-05-01T23:00:00Z", "time_zone": "Europe/Madrid",
        });
        service.event(event).await;
        let row = json!([{ "seat": text, "gate": text, "category": text }]);
        service.organizer.post(format!("/api/events/{slug}/tickets"), row).await.is(201);
        let user = json!({ "username": format!("ana-{number}"), "full_name": name });
        service.organizer.post("/api/users", user).await.is(201);
        let place = json!({ "event": slug, "seat": text, "gate": text });
        let given = service.organizer.post(format!("/api/users/ana-{number}/tickets"), place).await.is(201);
        let page = page_of(&service, given["ticket_id"].as_str().expect("an id")).await;
        let link = press(&service.anonymous, &page).await;
        println!("{} characters", link.len());
        assert!(link.len() <= LONGEST_LINK, "{} characters", link.len());
        let claims = account.claims(&link);
        let name = &claims["payload"]["eventTicketClasses"][0]["eventName"]["defaultValue"]["value"];
        assert!(name.as_str().is_some_and(|name| name.ends_with('…') && name.len() > 5), "{name}");
        assert_eq!(shown(&claims, &service), Ticket::new(&given).qr(service.now()));
    }
}

async fn a_pass_of_before_has_codes_that_no_longer_admit(service: Service) {
    let account = Account::new();
    let service = service.another(&account.settings());
    let ticket = service.ticket("A1").await;
    let before = account.claims(&press(&service.anonymous, &page_of(&service, ticket.ticket_id).await).await);
    service.clock.advance(1_000);
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/reissue", ticket.ticket_id)).await.is(200);
    let page = page_of(&service, ticket.ticket_id).await;
    let after = account.claims(&press(&service.anonymous, &page).await);
    let id = |claims: &Value| claims["payload"]["eventTicketObjects"][0]["id"].clone();
    assert_ne!(id(&before), id(&after), "Google would keep the one before");
    let gate = service.gate().await;
    let old = gate.post("/api/events/default/scans", scan(&shown(&before, &service))).await;
    assert_ne!(old.status, 200, "{}", old.text());
    gate.post("/api/events/default/scans", scan(&shown(&after, &service))).await.is_scan(200, "accepted");
}

async fn what_shows_no_code_makes_no_pass(service: Service) {
    let account = Account::new();
    let service = service.another(&account.settings());
    let ticket = service.ticket("A1").await;
    let page = page_of(&service, ticket.ticket_id).await;
    let gate = service.gate().await;
    gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    assert_eq!(press(&service.anonymous, &page).await, page, "it says that it was used");
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    assert_eq!(press(&service.anonymous, &page).await, page, "it says that it is revoked");
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/reissue", ticket.ticket_id)).await.is(200);
    service.anonymous.get(format!("{page}/wallet")).await.is_refused(404, "ticket_not_found");
    service.anonymous.get("/t/dead/wallet").await.is_refused(404, "ticket_not_found");
}

async fn without_an_issuer_there_is_no_pass_and_no_word_of_it(service: Service) {
    let ticket = service.ticket("A1").await;
    let page = page_of(&service, ticket.ticket_id).await;
    assert!(service.anonymous.get(&page).await.text().contains("data-wallet=\"\""));
    service.anonymous.get(format!("{page}/wallet")).await.is_refused(404, "not_found");
}

async fn nothing_of_a_pass_is_logged(service: Service) {
    let account = Account::new();
    let ticket = service.ticket("A1").await;
    let page = page_of(&service, ticket.ticket_id).await;
    let settings = account.settings().into_iter().chain([("RUST_LOG", "debug")]);
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let server = Server::start(service.database.environment().into_iter().chain(settings)).await;
    // A client that followed the redirect would call Google.
    let asked = format!("{}\r\n", head("GET", &format!("{page}/wallet"), ""));
    let link = server.exchange(asked.as_bytes()).expect("an answer").header("location").to_owned();
    server.process.logged("/t/{token}/wallet").await;
    let claims = account.claims(&link);
    let key = &claims["payload"]["eventTicketObjects"][0]["rotatingBarcode"]["totpDetails"]["parameters"][0]["key"];
    let log = server.process.log();
    for secret in [key.as_str().expect("Base16"), &link[40..80], page.trim_start_matches("/t/"), "PRIVATE KEY", EMAIL] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
