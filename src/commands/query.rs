//! `query`: reads the database where neither `sqlite3` nor `psql` is available, as in the image.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use data_encoding::HEXLOWER;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions as _, Connection as _, Executor as _, Row, SqlSafeStr as _, Statement as _,
    TypeInfo as _, ValueRef as _,
};
use uuid::Uuid;

use crate::config::Database;

#[derive(Args)]
pub struct Arguments {
    /// A single select, such as "select status, count(*) from tickets group by status"; it cannot change anything. The
    /// views v_events, v_users, v_tickets, v_keys, v_scans and v_actions show times and ids in readable form
    #[arg(allow_hyphen_values = true)]
    statement: String,
    /// Print CSV instead of a table
    #[arg(long)]
    csv: bool,
}

/// Views of the tables in readable form, for this session only.
const SQLITE_VIEWS: &str = include_str!("../../sql/sqlite/views/readable.sql");
const POSTGRES_VIEWS: &str = include_str!("../../sql/postgres/views/readable.sql");

/// No longer than a person waits, because the database also serves gates.
const PATIENCE: Duration = Duration::from_secs(30);
const BEGIN: &str = "begin; set local statement_timeout = '30s'; set local time zone 'UTC'";

/// The names of the columns, and the rows. Values are text; `None` is null.
struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let app = super::app_on_what_is_there()?;
    let statement = arguments.statement.as_str();
    let answer = super::block_on(async {
        let answer = async {
            match &app.settings.database {
                Database::Sqlite(file) => of_sqlite(file, statement).await,
                Database::Postgres { service, .. } => of_postgres(service, statement).await,
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.context("the answer takes longer than 30 s")?
    })?;
    if arguments.csv { print_csv(&answer) } else { print_table(&answer) }
}

/// Wraps a statement in another one, which permits only a single `select`.
fn within(statement: &str) -> String {
    format!("select * from (\n{}\n) as answer", without_end(statement))
}

/// Removes semicolons, white space and comments at the end. Whatever this removes, the database decides what is permitted.
fn without_end(statement: &str) -> &str {
    let (mut at, mut end) = (0, 0);
    while at < statement.len() {
        let (length, counts) = token(&statement[at..]);
        at += length;
        if counts {
            end = at;
        }
    }
    &statement[..end]
}

/// Returns the length of the comment, quoted text or character at the beginning of a text, and whether it may end a statement.
fn token(text: &str) -> (usize, bool) {
    let after = |begin: usize, end: &str| text[begin..].find(end).map(|at| begin + at + end.len());
    match text.chars().next() {
        _ if text.starts_with("--") => (after(2, "\n").unwrap_or(text.len()), false),
        // A comment that is not closed is left for the database to refuse.
        _ if text.starts_with("/*") => after(2, "*/").map_or((text.len(), true), |length| (length, false)),
        Some('\'') => (after(1, "'").unwrap_or(text.len()), true),
        Some('"') => (after(1, "\"").unwrap_or(text.len()), true),
        Some(character) => (character.len_utf8(), !character.is_whitespace() && character != ';'),
        None => (0, false),
    }
}

async fn of_sqlite(file: &Path, statement: &str) -> anyhow::Result<Answer> {
    // SQLite's own flag, which no statement can revert.
    let options = SqliteConnectOptions::new().filename(file).read_only(true).disable_statement_logging();
    let mut connection = options.connect().await?;
    connection.execute(SQLITE_VIEWS).await?;
    // SQLite prepares only the first of several statements. A text that ends the outer one here would leave this one open.
    let deeper = format!("select 1 where exists ({})", within(statement));
    (&mut connection).prepare(AssertSqlSafe(deeper).into_sql_str()).await.map_err(said)?;
    let statement = within(statement);
    let prepared = (&mut connection).prepare(AssertSqlSafe(statement.clone()).into_sql_str()).await.map_err(said)?;
    let columns = names(prepared.columns());
    let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch(&mut connection).try_collect().await;
    let rows: Vec<SqliteRow> = rows.map_err(said)?;
    connection.close().await?;
    Answer::of(columns, &rows, |row, place| {
        let value = row.try_get_raw(place)?;
        if value.is_null() {
            return Ok(None);
        }
        Ok(Some(match value.type_info().name() {
            "INTEGER" | "BOOLEAN" => row.try_get_unchecked::<i64, _>(place)?.to_string(),
            "REAL" => row.try_get_unchecked::<f64, _>(place)?.to_string(),
            "BLOB" => bytes(row.try_get_unchecked::<Vec<u8>, _>(place)?),
            _ => row.try_get_unchecked::<String, _>(place)?,
        }))
    })
}

async fn of_postgres(service: &PgConnectOptions, statement: &str) -> anyhow::Result<Answer> {
    let mut connection = service.clone().disable_statement_logging().connect().await?;
    // A replica rejects the views, but its tables can be read.
    if connection.execute(AssertSqlSafe(format!("{BEGIN}; {POSTGRES_VIEWS}"))).await.is_err() {
        connection.execute(AssertSqlSafe(format!("rollback; {BEGIN}"))).await?;
    }
    connection.execute("set transaction read only").await?;
    let statement = within(statement);
    // Preparing accepts only one statement, so a second one cannot end the transaction and then write.
    let prepared = (&mut connection).prepare(AssertSqlSafe(statement.clone()).into_sql_str()).await.map_err(said)?;
    let columns = names(prepared.columns());
    // The simple protocol, in which PostgreSQL formats each value as text.
    let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch(&mut connection).try_collect().await;
    let rows: Vec<PgRow> = rows.map_err(said)?;
    connection.close().await?;
    Answer::of(columns, &rows, |row, place| {
        let value = row.try_get_raw(place)?;
        if value.is_null() { Ok(None) } else { Ok(Some(value.as_str().map_err(sqlx::Error::Decode)?.to_owned())) }
    })
}

/// Reduces an error of PostgreSQL to its message, without the line in PostgreSQL's source.
fn said(error: sqlx::Error) -> anyhow::Error {
    match error.as_database_error() {
        Some(told) => anyhow::anyhow!("{}", told.message()),
        None => error.into(),
    }
}

/// Formats bytes as a UUID, or otherwise in hexadecimal.
fn bytes(bytes: Vec<u8>) -> String {
    Uuid::from_slice(&bytes).map_or_else(|_| HEXLOWER.encode(&bytes), |id| id.to_string())
}

fn names(columns: &[impl Column]) -> Vec<String> {
    columns.iter().map(|column| column.name().to_owned()).collect()
}

impl Answer {
    fn of<R: Row>(
        columns: Vec<String>,
        rows: &[R],
        read: impl Fn(&R, usize) -> Result<Option<String>, sqlx::Error>,
    ) -> anyhow::Result<Self> {
        let row = |row| (0..columns.len()).map(|place| read(row, place)).collect();
        let rows = rows.iter().map(row).collect::<Result<_, _>>()?;
        Ok(Self { columns, rows })
    }
}

fn print_csv(answer: &Answer) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
    writer.write_record(&answer.columns)?;
    for row in &answer.rows {
        writer.write_record(row.iter().map(|value| value.as_deref().unwrap_or_default()))?;
    }
    Ok(writer.flush()?)
}

/// Maximum width of a column. A longer value extends beyond it.
const WIDEST: usize = 60;

/// Prints columns of text, as wide as their widest value.
fn print_table(answer: &Answer) -> anyhow::Result<()> {
    let shown = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), visible);
    let mut lines: Vec<Vec<String>> = vec![answer.columns.iter().map(|name| visible(name)).collect()];
    lines.extend(answer.rows.iter().map(|row| row.iter().map(shown).collect()));
    let width =
        |place: usize| lines.iter().map(|line| line[place].chars().count()).max().unwrap_or_default().min(WIDEST);
    let widths: Vec<usize> = (0..answer.columns.len()).map(width).collect();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say!("{}", cells.join("  ").trim_end());
    }
    note!("{} rows", answer.rows.len());
    Ok(())
}

/// Escapes control characters, so that a guest's name cannot control the terminal.
fn visible(text: &str) -> String {
    // Marks of direction would reorder what stands around them.
    let is_unsafe = |one: char| {
        one.is_control() || matches!(one, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().flat_map(|one| if is_unsafe(one) { one.escape_default().collect() } else { vec![one] }).collect()
}
