//! The benchmarks. Run them with `scripts/bench`, which builds the programs to measure and starts PostgreSQL.

mod against;
mod away;
mod client;
mod growth;
mod hostile;
mod imports;
mod large;
mod memory;
mod postgres;
mod process;
#[expect(dead_code, reason = "the tests break it in more ways")]
#[path = "../../tests/suite/proxy.rs"]
mod proxy;
mod report;
mod scans;
mod start;
mod store;
mod tickets;
mod wire;

use report::Report;

fn main() {
    // Cargo adds `--bench`.
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let named = |name: &str| names.iter().any(|named| named == name);
    let wanted = |name: &str| names.is_empty() || named(name);
    let unknown = names.iter().find(|name| {
        !["start", "memory", "scans", "growth", "large", "beside", "against", "imports", "away", "hostile"]
            .contains(&name.as_str())
    });
    assert!(unknown.is_none(), "no part is named {unknown:?}");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut report = Report::default();
    runtime.block_on(async {
        if wanted("start") {
            start::measure(&mut report).await;
        }
        if wanted("memory") {
            memory::measure(&mut report).await;
        }
        if wanted("scans") {
            scans::measure(&mut report).await;
        }
        if wanted("growth") {
            growth::measure(&mut report).await;
        }
        // Only on request: it takes ten minutes.
        if named("large") {
            large::measure(&mut report).await;
        }
        if named("beside") {
            large::measure_beside(&mut report).await;
        }
        if named("against") {
            let other = std::env::var("BASELINE").expect("BASELINE names the program to compare with");
            against::measure(&mut report, &other).await;
        }
        if wanted("imports") {
            imports::measure(&mut report).await;
        }
        if wanted("away") {
            away::measure(&mut report).await;
        }
        if wanted("hostile") {
            hostile::measure(&mut report).await;
        }
    });
    print!("{report}");
}
