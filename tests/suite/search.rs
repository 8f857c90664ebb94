//! Text is compared the way people read it: what a search finds, which seats and gates are the same, and what is
//! erased.

use http::Method;
use serde_json::{Value, json};

use crate::service::{Service, Ticket, assert_members};

on_both_databases! {
    a_ticket_is_found_by_words_as_people_read_them,
    who_holds_a_ticket_now_is_who_it_is_found_by,
    of_who_was_erased_nothing_is_kept_to_find_them_by,
    tickets_of_a_release_that_does_not_fold_are_found_and_compared,
    an_address_is_found_by_those_who_may_know_it,
    a_seat_is_found_as_people_read_it,
    two_seats_that_people_read_as_the_same_are_one,
    seats_that_0_1_0_told_apart_go_on,
    a_gate_is_the_same_as_people_read_it,
    an_address_is_the_same_in_upper_and_lower_case,
    text_is_kept_as_people_read_it,
    an_import_writes_what_its_tickets_are_found_by,
}

const TICKETS: &str = "/api/events/default/tickets";
const SCANS: &str = "/api/events/default/scans";

async fn import(service: &Service, rows: &str) {
    service.organizer.post_csv(TICKETS, format!("seat,gate,username,full_name,email\n{rows}")).await.is(201);
}

/// The seats that a search finds, in the order of the list.
async fn found(client: &crate::client::Client, words: &str) -> Vec<String> {
    let words: String = words.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let list = client.get(format!("{TICKETS}?q={words}")).await.is(200);
    let tickets = list["tickets"].as_array().expect("a list");
    tickets.iter().map(|ticket| ticket["seat"].as_str().expect("a seat").to_owned()).collect()
}

/// Otherwise the first search would have to: with 90,000 tickets, for longer than a request may take.
async fn an_import_writes_what_its_tickets_are_found_by(service: Service) {
    import(
        &service,
        "A-1,North,ana,Ana Ruiz,ana@example.org\nA-2,North,ana,ANA RUIZ,\nA-3,North,ana,Eva Gil,\nA-4,North,,,\n",
    )
    .await;
    let many: String = (0..2_000).map(|n| format!("B-{n},South,u{n},Person {n},u{n}@example.org\n")).collect();
    import(&service, &many).await;
    let unfolded = "select count(*) from tickets where search is null and seat <> 'A-2' and seat <> 'A-3'";
    assert_eq!(service.database.count(unfolded).await, 0);
    assert_eq!(found(&service.organizer, "ruiz").await, ["A-1", "A-2"]);
    assert_eq!(found(&service.organizer, "person 1999").await, ["B-1999"]);
}

async fn a_ticket_is_found_by_words_as_people_read_them(service: Service) {
    import(
        &service,
        "A-1,North,angel,\u{c1}NGEL N\u{fa}\u{f1}ez,\n\
         A-2,North,zoe,Zoe\u{308} M\u{fc}ller,\n\
         A-12,North,seamus,S\u{e9}amus O\u{2019}Brien-\u{141}ukasz,\n\
         B-1,North,taro,\u{7530}\u{4e2d}\u{592a}\u{90ce},\n\
         B-2,North,sofia,\u{3a3}\u{3bf}\u{3c6}\u{3af}\u{3b1} \u{39f}\u{3b4}\u{3cc}\u{3c2},\n\
         B-3,North,,,\n",
    )
    .await;
    for (words, seats) in [
        ("\u{e1}ngel", &["A-1"][..]),
        ("ANGEL nunez", &["A-1"]),
        ("N\u{da}\u{d1}EZ \u{e1}", &["A-1"]),
        ("nu\u{301}n\u{303}ez", &["A-1"]),
        ("M\u{dc}LLER", &["A-2"]),
        ("M\u{fc}ller Zo\u{eb}", &["A-2"]),
        ("zoe mull", &["A-2"]),
        ("muller, zoe", &["A-2"]),
        ("o'brien", &["A-12"]),
        ("obrien lukasz seamus", &["A-12"]),
        ("a-12", &["A-12"]),
        ("12 brien", &["A-12"]),
        ("\u{592a}\u{90ce}", &["B-1"]),
        ("\u{3bf}\u{3b4}\u{3bf}\u{3c3}", &["B-2"]),
        ("muller angel", &[]),
        ("zoe zoe zoe zoe zoe zoe zoe zoe zoe", &["A-2"]),
        ("' ' -", &["A-1", "A-2", "A-12", "B-1", "B-2", "B-3"]),
    ] {
        assert_eq!(found(&service.organizer, words).await, seats, "{words}");
    }
}

async fn who_holds_a_ticket_now_is_who_it_is_found_by(service: Service) {
    for (username, name) in [("ana", "Ana Ruiz"), ("bob", "B\u{f3}b Gil")] {
        service.organizer.post("/api/users", json!({ "username": username, "full_name": name })).await.is(201);
    }
    // Registered by the import: the name is already known and not in the file.
    import(&service, "A1,North,ana,,\nA2,North,,,\n").await;
    assert_eq!(found(&service.organizer, "ruiz").await, ["A1"]);

    let registered = service.organizer.post("/api/users/bob/tickets", json!({ "seat": "A2", "gate": "North" })).await;
    let ticket = Ticket::new(&registered.is(201));
    assert_eq!(found(&service.organizer, "bob gil").await, ["A2"]);

    let transfer = format!("/api/tickets/{}/transfer", ticket.ticket_id);
    service.organizer.post(transfer, json!({ "username": "ana" })).await.is(200);
    assert_eq!(found(&service.organizer, "gil").await, Vec::<String>::new());
    assert_eq!(found(&service.organizer, "ruiz").await, ["A1", "A2"]);

    service.organizer.patch("/api/users/ana", json!({ "full_name": "\u{c1}na Mu\u{f1}oz" })).await.is(200);
    assert_eq!(found(&service.organizer, "ruiz").await, Vec::<String>::new());
    assert_eq!(found(&service.organizer, "munoz").await, ["A1", "A2"]);
    service.organizer.patch("/api/users/ana", json!({ "email": "Munoz@Example.org" })).await.is(200);
    assert_eq!(found(&service.organizer, "munoz@example.org").await, ["A1", "A2"]);
}

async fn of_who_was_erased_nothing_is_kept_to_find_them_by(service: Service) {
    import(&service, "A1,North,ana,Ana Ruiz,ana@example.org\nA2,North,ana,Her Guest,\n").await;
    let kept =
        "select count(*) from tickets where search like '%ruiz%' or search like '%guest%' or search like '%ana%'";
    assert_eq!(found(&service.organizer, "ruiz").await, ["A1"]);
    assert_eq!(service.database.count(kept).await, 2);
    service.organizer.delete("/api/users/ana").await.is(204);
    assert_eq!(service.database.count(kept).await, 0);
    for words in ["ruiz", "guest", "ana", "example"] {
        assert_eq!(found(&service.organizer, words).await, Vec::<String>::new(), "{words}");
    }
    assert_eq!(found(&service.organizer, "a").await, ["A1", "A2"]);
    assert_eq!(service.database.count(kept).await, 0);
}

/// Puts the tickets into the state in which the previous release left them.
async fn unfold(service: &Service) {
    let unfold = "update tickets set search = null, seat_key = null, gate_key = null";
    service.database.execute(unfold).await.expect("a statement");
}

async fn tickets_of_a_release_that_does_not_fold_are_found_and_compared(service: Service) {
    import(&service, "\u{d3}1,Puerta \u{da}nica,ana,\u{c1}na,\nB1,South,,,\n").await;
    unfold(&service).await;
    assert_eq!(found(&service.organizer, "ana").await, ["\u{d3}1"]);
    unfold(&service).await;
    let list = service.organizer.get(format!("{TICKETS}?gate=PUERTA+UNICA")).await.is(200);
    assert_eq!(list["tickets"].as_array().map(Vec::len), Some(1));
    unfold(&service).await;
    service.organizer.post(TICKETS, json!({ "seat": "b1", "gate": "south" })).await.is_refused(409, "seat_taken");
    unfold(&service).await;
    register_ticket_api::store::migrate(&service.database.database()).await.expect("a migration");
    assert_eq!(service.database.count("select count(*) from tickets where search is null").await, 0);
    assert_eq!(service.database.count("select count(*) from tickets where gate_key = 'puerta unica'").await, 1);
}

async fn an_address_is_found_by_those_who_may_know_it(service: Service) {
    let bound = service.key(json!({ "name": "Ben", "role": "organizer", "event": "default" })).await;
    import(&service, "A1,North,ana,Ana,secret@example.org\n").await;
    let own = "seat,gate,username,full_name,email\nA2,North,luis,Luis,hidden@example.org\n";
    bound.post_csv(TICKETS, own).await.is(201);
    assert_eq!(found(&service.organizer, "secret@example.org").await, ["A1"]);
    assert_eq!(found(&service.organizer, "example").await, ["A1", "A2"]);
    assert_eq!(found(&bound, "secret").await, Vec::<String>::new());
    assert_eq!(found(&bound, "example").await, ["A2"]);
    assert_eq!(found(&bound, "ana").await, ["A1"]);
    // The result is the same after folding again.
    unfold(&service).await;
    assert_eq!(found(&bound, "secret").await, Vec::<String>::new());
    assert_eq!(found(&bound, "hidden").await, ["A2"]);
    assert_eq!(found(&service.organizer, "secret").await, ["A1"]);
}

/// A ticket with a holder, in a seat that is not a username.
async fn held(service: &Service, username: &str, seat: &str, gate: &str) -> Ticket {
    service.user(username).await;
    service.seat("default", seat, gate).await;
    let body = json!({ "seat": seat, "gate": gate });
    Ticket::new(&service.organizer.post(format!("/api/users/{username}/tickets"), body).await.is(201))
}

async fn a_seat_is_found_as_people_read_it(service: Service) {
    let ticket = held(&service, "ana", "Fila \u{c1}rbol-3", "Entrada \u{da}nica").await;
    service.seat("default", "N-1", "North").await;
    let typed = |seat: &str, gate: &str, code: &str| json!({ "seat": seat, "gate": gate, "totp_code": code });
    let wrong = ticket.wrong_code(service.now());
    let answer =
        service.organizer.post("/api/users/attendance", typed("FILA  arbol\u{2013}3", "ENTRADA UNICA", &wrong));
    let scan = answer.await.is_scan(422, "wrong_code");
    assert_members(&scan["ticket"], json!({ "seat": "Fila \u{c1}rbol-3", "gate": "Entrada \u{da}nica" }));
    let code = ticket.code(service.now());
    let answer = service.organizer.post("/api/users/attendance", typed("fila arbol-3", "entrada unica", &code));
    answer.await.is_scan(200, "accepted");
    // A letter with an accent is another row.
    let answer = service.organizer.post("/api/users/attendance", typed("\u{d1}-1", "North", "000000"));
    answer.await.is_scan(404, "unknown_ticket");

    service.user("luis").await;
    let registered =
        service.organizer.post("/api/users/luis/tickets", json!({ "seat": "n-1", "gate": " NORTH " })).await;
    assert_members(&registered.is(201), json!({ "seat": "N-1", "gate": "North" }));
}

async fn two_seats_that_people_read_as_the_same_are_one(service: Service) {
    service.seat("default", "Palco \u{c1}rbol", "North").await;
    for (seat, gate) in [("PALCO ARBOL", "north"), ("palco  a\u{301}rbol", "North"), ("Palco \u{c1}rbol", "NORTH")] {
        service.organizer.post(TICKETS, json!({ "seat": seat, "gate": gate })).await.is_refused(409, "seat_taken");
        let file = format!("seat,gate\nB1,North\n{seat},{gate}\n");
        let refused = service.organizer.post_csv(TICKETS, file).await.is_refused(409, "seat_taken");
        assert_eq!(refused["errors"][0]["field"], "line 3", "{refused}");
    }
    let twice = json!([{ "seat": "C1", "gate": "North" }, { "seat": "c1", "gate": "north" }]);
    service.organizer.post(TICKETS, twice).await.is_refused(422, "invalid_payload");
    service.organizer.post_csv(TICKETS, "seat,gate\nC1,North\nc1,north\n").await.is_refused(422, "invalid_payload");
    // Of two at once, one is created.
    let make = |seat: &'static str| service.organizer.post(TICKETS, json!({ "seat": seat, "gate": "North" }));
    let (one, two) = tokio::join!(make("Eins"), make("EINS"));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    // Rows of one letter differ by its accent.
    for seat in ["N-7", "\u{d1}-7", "NN-7", "\u{d1}\u{d1}-7"] {
        service.seat("default", seat, "North").await;
    }
}

async fn seats_that_0_1_0_told_apart_go_on(service: Service) {
    let (upper, lower) = (service.ticket("A1").await, service.ticket("B1").await);
    let twin = "update tickets set seat = 'a1', search = null, seat_key = null, gate_key = null where seat = 'B1'";
    service.database.execute(twin).await.expect("a statement");
    for (seat, ticket) in [("A1", &upper), ("a1", &lower)] {
        assert_eq!(found(&service.organizer, "a1").await, ["A1", "a1"]);
        let body = json!({ "seat": seat, "gate": "North", "totp_code": ticket.code(service.now()) });
        let scan = service.organizer.post("/api/users/attendance", body).await.is_scan(200, "accepted");
        assert_eq!(scan["ticket"]["ticket_id"], ticket.ticket_id.to_string());
    }
    // It could mean either of the two.
    let body = json!({ "seat": "A1", "gate": "north", "totp_code": "000000" });
    service.organizer.post("/api/users/attendance", body).await.is_scan(404, "unknown_ticket");
    service
        .organizer
        .post(TICKETS, json!({ "seat": "\u{ff21}1", "gate": "North" }))
        .await
        .is_refused(409, "seat_taken");
}

async fn a_gate_is_the_same_as_people_read_it(service: Service) {
    let ticket = held(&service, "ana", "A1", "Entrada \u{da}nica").await;
    held(&service, "u2", "A2", "ENTRADA UNICA").await;
    held(&service, "u3", "A3", "Entrada 10").await;
    held(&service, "u4", "A4", "Entrada 2").await;
    let key =
        json!({ "name": "Door", "role": "supervisor", "event": "default", "gate": "entrada unica", "offline": true });
    let gate = service.key(key).await;

    let manifest = gate.get("/api/events/default/manifest").await.is(200);
    let keyed = |ticket: &&Value| ticket["key"].is_string();
    assert_eq!(manifest["tickets"].as_array().expect("a list").iter().filter(keyed).count(), 2);

    let scan = gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    gate.bare(Method::POST, format!("/api/scans/{}/undo", scan["scan_id"].as_str().expect("an id"))).await.is(200);

    let stats = service.organizer.get("/api/events/default/stats").await.is(200);
    let gates: Vec<_> = stats["gates"].as_array().expect("a list").iter().map(|gate| &gate["gate"]).collect();
    assert_eq!(gates, ["Entrada 2", "Entrada 10", "ENTRADA UNICA"]);
    assert_members(&stats["gates"][2], json!({ "tickets": 2, "registered": 2 }));

    // The tickets known to this gate's lost phone are renewed, however the gate is written.
    let keys = service.organizer.get("/api/keys").await.is(200);
    let door = keys["keys"].as_array().expect("a list").iter().find(|key| key["name"] == "Door").expect("the key");
    let lost = format!("/api/keys/{}/lost", door["key_id"].as_str().expect("an id"));
    assert_members(&service.organizer.bare(Method::POST, lost).await.is(200), json!({ "renewed": 2, "remaining": 0 }));
}

async fn an_address_is_the_same_in_upper_and_lower_case(service: Service) {
    import(&service, "A1,North,ana,Ana,\u{d1}and\u{fa}@Example.org\n").await;
    import(&service, "A2,North,ana,Ana,\u{f1}and\u{fa}@example.ORG\n").await;
    let file = "seat,gate,username,full_name,email\nA3,North,ana,Ana,nandu@example.org\n";
    service.organizer.post_csv(TICKETS, file).await.is_refused(422, "invalid_payload");
}

async fn text_is_kept_as_people_read_it(service: Service) {
    let body = json!({ "seat": "  Fila\u{a0} u\u{301}nica ", "gate": "\u{2003}North" });
    service.organizer.post(TICKETS, body).await.is(201);
    let list = service.organizer.get(TICKETS).await.is(200);
    assert_members(&list["tickets"][0], json!({ "seat": "Fila \u{fa}nica", "gate": "North" }));
    let body = json!({ "username": "ana", "full_name": " Zoe\u{308}  M " });
    let user = service.organizer.post("/api/users", body).await.is(201);
    assert_eq!(user["full_name"], "Zo\u{eb} M");
}
