//! Lists are sent in pages: at most `?limit=` entries, after the cursor `?after=`, the `next` of the previous page.
//! Exports and the manifest are whole lists, read page by page while they are sent.

use data_encoding::BASE64URL_NOPAD;
use futures_util::stream::{self, Stream};
use http::StatusCode;
use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use uuid::Uuid;

use crate::error::Error;
use crate::fault::Fault;
use crate::response::{self, Response};

/// The query parameters of a list that has no others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PageQuery {
    /// Maximum number of entries in a page.
    #[serde(default)]
    pub limit: Limit,
    /// The `next` of the previous page.
    pub after: Option<Cursor>,
}

/// Maximum number of entries in a page, from 1 to 500.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct Limit(usize);

impl Limit {
    /// The highest limit.
    pub const GREATEST: usize = 500;
    /// The default.
    pub const USUAL: usize = 100;

    /// Returns how many entries to read: one more than is sent, to see whether there is a next page.
    pub fn to_read(self) -> i64 {
        self.0 as i64 + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(Self::USUAL)
    }
}

impl TryFrom<String> for Limit {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        // Rust would also accept a plus sign.
        match text.parse() {
            Ok(limit @ 1..=Self::GREATEST) if !text.starts_with('+') => Ok(Self(limit)),
            _ => Err(Fault::OutOfRange { least: 1, most: Self::GREATEST }),
        }
    }
}

/// The id of the last entry of a page, as base64url. Clients pass it on without interpreting it.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct Cursor(pub Uuid);

impl TryFrom<String> for Cursor {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        let decode = |text: &str| Uuid::from_slice(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok();
        decode(&text).map(Self).ok_or(Fault::NotACursor)
    }
}

/// Encodes the cursor of an entry.
pub fn encode(id: Uuid) -> String {
    BASE64URL_NOPAD.encode(id.as_bytes())
}

/// Responds with a page of a list: `{"<name>": […], "next": cursor or null}`. `members` has at most [`Limit::to_read`] entries.
pub fn respond<T: Serialize>(
    name: &'static str,
    mut members: Vec<T>,
    limit: Limit,
    id: impl Fn(&T) -> Uuid,
) -> Result<Response, Error> {
    let more = members.len() > limit.0;
    members.truncate(limit.0);
    let next = members.last().filter(|_| more).map(|last| encode(id(last)));
    response::json(StatusCode::OK, &Page { name, members, next })
}

/// Entries of a whole list read at a time. Writing them out blocks a thread of the runtime for about 2 ms, and a scan may
/// have to wait for it.
pub const PAGE: i64 = 200;

/// Returns the pages of a whole list. `read` reads the [`PAGE`] entries after a position; `place` returns an entry's position.
pub fn pages<T, P, R>(
    read: impl Fn(Option<P>) -> R + Send + 'static,
    place: fn(&T) -> P,
) -> impl Stream<Item = Result<Vec<T>, Error>> + Send + 'static
where
    T: Send + 'static,
    P: Send + 'static,
    R: Future<Output = Result<Vec<T>, Error>> + Send + 'static,
{
    stream::try_unfold((read, Some(None)), move |(read, after)| async move {
        let Some(after) = after else { return Ok(None) };
        let members = read(after).await?;
        let full = members.len() as i64 == PAGE;
        let next = members.last().filter(|_| full).map(|last| Some(place(last)));
        Ok(Some((members, (read, next))))
    })
}

struct Page<T> {
    name: &'static str,
    members: Vec<T>,
    next: Option<String>,
}

impl<T: Serialize> Serialize for Page<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry(self.name, &self.members)?;
        map.serialize_entry("next", &self.next)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_1_to_500_members() {
        assert_eq!(Limit::default().to_read(), 101);
        for (text, most) in [("1", 1), ("500", 500)] {
            assert_eq!(Limit::try_from(text.to_owned()).unwrap().to_read(), most + 1);
        }
        for text in ["0", "501", "-1", "1.5", "", "99999999999999999999"] {
            assert!(Limit::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cursor_is_the_id_of_the_last_member() {
        let id = Uuid::from_u128(7);
        assert_eq!(Cursor::try_from(encode(id)).unwrap().0, id);
        for text in ["", "AA", "not base64 url", "00000000-0000-0000-0000-000000000007"] {
            assert!(Cursor::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
