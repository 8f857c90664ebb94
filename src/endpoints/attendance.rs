//! Lists of who is inside, for an evacuation, and of who came, for after the event.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use serde::Serialize;
use uuid::Uuid;

use super::actions::export;
use crate::app::App;
use crate::error::Error;
use crate::list::{self, PAGE};
use crate::model::Action;
use crate::request::Call;
use crate::response::Response;
use crate::sheet::{self, AttendanceLine, InsideLine};
use crate::store::{Act, Attendance};

/// `GET /api/events/{event}/inside.csv`: everybody inside, even for a key bound to a gate, because people leave by any door.
pub async fn export_inside(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    let act = Act::new(Action::InsideExported, event.event_id);
    export(&call, act, inside_rows(Arc::clone(call.app), event.event_id), &format!("inside-{}.csv", event.slug)).await
}

/// `GET /api/events/{event}/attendance.csv`.
pub async fn export_attendance(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    let rows = attendance_rows(Arc::clone(call.app), event.event_id, call.caller()?.event_id);
    let act = Act::new(Action::AttendanceExported, event.event_id);
    export(&call, act, rows, &format!("attendance-{}.csv", event.slug)).await
}

/// Streams the people inside as CSV, page by page. The command line writes the same.
pub fn inside_rows(app: Arc<App>, event_id: Uuid) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    rows::<InsideLine>(app, event_id, true, |writer, attendance| writer.line(&InsideLine::new(attendance)))
}

/// Streams who came and who did not as CSV, for a key bound to this event or to none.
pub fn attendance_rows(
    app: Arc<App>,
    event_id: Uuid,
    bound_to: Option<Uuid>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    rows::<AttendanceLine>(app, event_id, false, move |writer, attendance| {
        writer.line(&AttendanceLine::new(attendance, bound_to))
    })
}

fn rows<Line: Default + Serialize>(
    app: Arc<App>,
    event_id: Uuid,
    inside: bool,
    write: impl Fn(&mut sheet::Writer, &Attendance) -> Result<(), Error> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let read = move |after| {
        let app = Arc::clone(&app);
        async move { app.in_time(app.store().list_attendance(event_id, inside, after, PAGE)).await }
    };
    let mut writer = sheet::Writer::new::<Line>();
    list::pages(read, |attendance: &Attendance| attendance.ticket.ticket_id).map(move |page| {
        for attendance in &page? {
            write(&mut writer, attendance)?;
        }
        writer.take()
    })
}
