//! `check`: whether the data is as it can only be.

use anyhow::Context as _;

use crate::app::App;
use crate::config::Settings;
use crate::model::Millis;

pub fn run() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    if let Some(file) = settings.sqlite_file() {
        // Opened where it is missing, it would be made.
        let place = std::path::absolute(file)?;
        std::fs::metadata(&place).with_context(|| place.display().to_string())?;
    }
    let app = App::new(settings, Box::new(Millis::now));
    super::block_on(async { check(&app).await })
}

/// Says how much was looked at, or fails with what is wrong, a line for each invariant that is broken.
pub(super) async fn check(app: &App) -> anyhow::Result<()> {
    let checked = app.store().check().await?;
    let breaches: Vec<_> = checked.iter().filter_map(|checked| checked.breach()).collect();
    let (all, broken) = (checked.len(), breaches.len());
    anyhow::ensure!(broken == 0, "{broken} of {all} invariants of the data are broken:\n{}", breaches.join("\n"));
    say!("All {all} invariants of the data hold.");
    Ok(())
}
