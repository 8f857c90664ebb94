//! `check`: checks the invariants of the data.

use crate::app::App;

pub fn run() -> anyhow::Result<()> {
    let app = super::app_on_what_is_there()?;
    super::block_on(async { check(&app).await })
}

/// Prints the number of invariants checked, or fails with a line for each broken invariant.
pub(super) async fn check(app: &App) -> anyhow::Result<()> {
    let checked = app.store().check().await?;
    let breaches: Vec<_> = checked.iter().filter_map(|checked| checked.breach()).collect();
    let (all, broken) = (checked.len(), breaches.len());
    anyhow::ensure!(broken == 0, "{broken} of {all} invariants of the data are broken:\n{}", breaches.join("\n"));
    say!("All {all} invariants of the data hold.");
    Ok(())
}
