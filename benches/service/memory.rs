//! Measures the service's memory.

use std::time::Duration;

use crate::client::{Clients, Until, ask};
use crate::process::{Memory, memory};
use crate::report::{Report, Table};
use crate::store::Store;
use crate::tickets::{self, Tickets};

const CLIENTS: usize = 256;

pub async fn measure(report: &mut Report) {
    let columns =
        ["MiB, resident (proportional)", "after start", "after the first scan", "under 256 connections", "peak"];
    let mut table = Table::new(&columns);
    let mut first: f64 = 0.0;
    let mut loaded: f64 = 0.0;
    for store in Store::both("memory") {
        tickets::import(&store.serve(5), "default", 50_000).await;
        let tickets = Tickets::of(&store.serve(5), "default").await;
        for pool_max in [5, 32] {
            let server = store.serve(pool_max);
            ask(&server, "GET", "/health", "", b"").await;
            let after_start = memory(server.pid());
            Clients::connect(&server, 1).await.scan(&tickets, Until { scans: 1, time: Duration::from_secs(60) }).await;
            let after_scan = memory(server.pid());
            let mut clients = Clients::connect(&server, CLIENTS).await;
            clients.scan(&tickets, Until { scans: 20_000, time: Duration::from_secs(4) }).await;
            // The connections are still open.
            let under_load = memory(server.pid());
            first = first.max(after_scan.resident);
            loaded = loaded.max(under_load.peak);
            let shown = |memory: Memory| format!("{:.1} ({:.1})", memory.resident, memory.proportional);
            table.row([
                format!("{}, DB_POOL_MAX {pool_max}", store.kind),
                shown(after_start),
                shown(after_scan),
                shown(under_load),
                format!("{:.1}", under_load.peak),
            ]);
        }
    }
    report.at_most("resident memory after the first scan, either database", 12.0, first, " MiB");
    report.at_most("resident memory under 256 connections, at its peak, either database", 32.0, loaded, " MiB");
    report.section("Memory", table);
}
