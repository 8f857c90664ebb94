//! What columns are called: `columns.json`, in six languages and as the well-known sellers and forms export them. A name that
//! is not there is a line of that file.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;
use strum::{EnumIter, EnumString, IntoEnumIterator as _, IntoStaticStr};

/// What a column holds, by the name that `?columns=` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Field {
    /// The row of the seat, which the seat's name begins with.
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
    /// Which one of the tickets of its order it is.
    OrderPosition,
    Quantity,
    /// What kind of ticket it is, as the gate shows it.
    Category,
    /// What the gate should know.
    Note,
    /// From when the ticket admits,
    ValidFrom,
    /// and until when.
    ValidUntil,
    /// A seller's word for whether the ticket is one.
    Status,
}

impl Field {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// All names, in the order in which people meet them.
    pub fn names() -> Vec<String> {
        Self::iter().map(|field| field.name().to_owned()).collect()
    }
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The column of this field, unless there is one of a lower rank: an attendee's address goes before the buyer's.
    Field(Field, usize),
    /// Something that a ticket has no use for.
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
    // A test reads it.
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

/// What a column of this name holds, if anybody knows.
pub fn find(name: &str) -> Option<Known> {
    // No name that is known is longer, and a file may have anything.
    (name.len() <= 200).then(|| KNOWN.get(&fold(name)).copied()).flatten()
}

/// What a seller's word for a status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// This is no ticket, or not yet.
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

/// Whether a cell says that its line is a sum.
pub fn is_sum(text: &str) -> bool {
    NAMES.sums.contains(&fold(text))
}

/// Whether a form or a person has written this where somebody gave no address.
pub fn is_nobody(email: &str) -> bool {
    let word = fold(email);
    word.is_empty() || NAMES.nobody.contains(&word)
}

/// A name as it is compared: its words without case and accents, and without what is between them. `Attendee #` is no
/// `Attendee`.
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
        assert!(is_sum("TOTAL:") && is_sum("Suma total") && !is_sum("Toto Tal"));
        assert!(is_nobody("anonymous") && is_nobody("-") && !is_nobody("ana@example.org"));
        assert_ne!(find("Attendee"), find("Attendee #"));
    }
}
