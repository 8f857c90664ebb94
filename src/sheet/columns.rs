//! The names of columns: `columns.json` has them in six languages, and as well-known sellers and forms export them. A new
//! name is a new entry of that file.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;
use strum::{EnumIter, EnumString, IntoEnumIterator as _, IntoStaticStr};

/// The content of a column, by its name in `?columns=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Field {
    /// The row of the seat, which becomes the first part of the seat's name.
    Row,
    Seat,
    Gate,
    Username,
    FullName,
    FirstName,
    LastName,
    Email,
    Reference,
    /// A seller's order, which may have several tickets.
    Order,
    /// The position of the ticket in its order.
    OrderPosition,
    Quantity,
    /// The kind of ticket, shown at the gate.
    Category,
    /// A note for the gate.
    Note,
    /// When the ticket begins to admit.
    ValidFrom,
    /// When the ticket ceases to admit.
    ValidUntil,
    /// The seller's status of the ticket.
    Status,
}

impl Field {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns all names, in the order in which people see them.
    pub fn names() -> Vec<String> {
        Self::iter().map(|field| field.name().to_owned()).collect()
    }
}

/// The meaning of a column's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The column of this field, unless another one has a lower rank: an attendee's address takes precedence over the buyer's.
    Field(Field, usize),
    /// Known, but not used by tickets.
    Left,
}

#[derive(Deserialize)]
struct Names {
    fields: HashMap<String, Vec<Vec<String>>>,
    left: Vec<String>,
    void: HashSet<String>,
    good: HashSet<String>,
    sums: HashSet<String>,
    nobody: HashSet<String>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    // A test parses it.
    let mut names: Names =
        serde_json::from_str(include_str!("columns.json")).unwrap_or_else(|error| panic!("columns.json: {error}"));
    for words in [&mut names.void, &mut names.good, &mut names.sums, &mut names.nobody] {
        *words = words.iter().map(|word| fold(word)).collect();
    }
    names
});

static KNOWN: LazyLock<HashMap<String, Known>> = LazyLock::new(|| {
    let left = NAMES.left.iter().map(|name| (fold(name), Known::Left));
    let mut known: HashMap<String, Known> = left.collect();
    for (field, ranks) in &NAMES.fields {
        let Ok(field) = field.parse::<Field>() else { continue };
        known.insert(fold(field.name()), Known::Field(field, 0));
        for (rank, names) in ranks.iter().enumerate() {
            known.extend(names.iter().map(|name| (fold(name), Known::Field(field, rank))));
        }
    }
    known
});

/// Returns the meaning of a column's name, if known.
pub fn find(name: &str) -> Option<Known> {
    // No known name is longer, and a file may have anything.
    (name.len() <= 200).then(|| KNOWN.get(&fold(name)).copied()).flatten()
}

/// The meaning of a seller's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// Not a ticket, or not yet.
    Void,
    Unknown,
}

pub fn standing(status: &str) -> Standing {
    let word = fold(status);
    match () {
        () if NAMES.void.contains(&word) => Standing::Void,
        () if word.is_empty() || NAMES.good.contains(&word) => Standing::Good,
        () => Standing::Unknown,
    }
}

/// Whether a cell marks its line as a sum, perhaps with the number itself.
pub fn is_sum(text: &str) -> bool {
    NAMES.sums.contains(fold(text).trim_end_matches(|character: char| character.is_ascii_digit()))
}

/// Whether this is what forms and people write when there is no address.
pub fn is_nobody(email: &str) -> bool {
    let word = fold(email);
    word.is_empty() || NAMES.nobody.contains(&word)
}

/// Folds a name for comparison: its words without case, accents and separators. `Attendee #` differs from `Attendee`.
pub fn fold(name: &str) -> String {
    crate::fold::words(&name.replace('#', " number ")).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_means_one_thing() {
        let mut seen: HashMap<String, String> = HashMap::new();
        let mut meets = |name: &str, meaning: String| {
            let other = seen.insert(fold(name), meaning.clone());
            assert!(other.as_ref().is_none_or(|other| *other == meaning), "{name} is {meaning} and {other:?}");
        };
        for (field, ranks) in &NAMES.fields {
            assert!(field.parse::<Field>().is_ok(), "there is no field {field}");
            for (rank, names) in ranks.iter().enumerate() {
                names.iter().for_each(|name| meets(name, format!("{field} {rank}")));
            }
        }
        NAMES.left.iter().for_each(|name| meets(name, "left".into()));
        for field in Field::iter() {
            assert!(NAMES.fields.contains_key(field.name()), "columns.json has no {}", field.name());
            assert_eq!(find(field.name()), Some(Known::Field(field, find_rank(field))), "its own name");
        }
    }

    fn find_rank(field: Field) -> usize {
        match find(field.name()) {
            Some(Known::Field(_, rank)) => rank,
            _ => usize::MAX,
        }
    }

    #[test]
    fn a_name_is_known_however_it_is_written() {
        for (name, field) in [
            ("E-Mail", Field::Email),
            ("CORREO ELECTRÓNICO", Field::Email),
            ("Correo electro\u{301}nico *", Field::Email),
            ("Adresse e‑mail :", Field::Email),
            ("¿Cuántas entradas?", Field::Quantity),
            ("Full_Name", Field::FullName),
            ("Your name", Field::FullName),
            ("Attendee name: Given name", Field::FirstName),
            ("Attendee #", Field::Reference),
        ] {
            assert!(matches!(find(name), Some(Known::Field(found, _)) if found == field), "{name}: {:?}", find(name));
        }
        assert_eq!(find("Zeitstempel"), Some(Known::Left));
        for name in ["", "?", "shoe size", "A1"] {
            assert_eq!(find(name), None, "{name}");
        }
        for (words, meaning) in [
            (["Refunded/Canceled", "pending_approval", "wc-on-hold", "Pendiente de pago"], Standing::Void),
            (["Attending", "valid", "wc-completed", "Bezahlt"], Standing::Good),
            (["Mitglied", "yes and no", "???x", "VIP"], Standing::Unknown),
        ] {
            assert!(words.iter().all(|word| standing(word) == meaning), "{words:?}");
        }
        assert!(
            is_sum("TOTAL:") && is_sum("Suma total") && is_sum("Total: 412") && !is_sum("Toto Tal") && !is_sum("412")
        );
        assert!(is_nobody("anonymous") && is_nobody("-") && !is_nobody("ana@example.org"));
        assert_ne!(find("Attendee"), find("Attendee #"));
    }
}
