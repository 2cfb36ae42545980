//! The Unicode properties and the case folding of Go 1.26, out of the tables of `regex-syntax`.
//!
//! Go 1.26 carries Unicode 15.0 (`unicode.Version`), `regex-syntax` 0.8 carries Unicode 16.0. Every table is
//! therefore cut to the code points that Unicode 15.0 has (property `Age`), and the few code points whose
//! properties changed since are put back: [`NONSPACING_BEFORE_16`] and [`UNFOLDED_BEFORE_16`]. The result is the
//! same set as Go's for every name that Go accepts; the tests compare them through a hash per set.
//!
//! Names are looked up as `regexp/syntax` does since Go 1.25: upper and lower case, `_`, `-` and spaces make no
//! difference; general categories, their long names, `Any`, `ASCII`, `Assigned` and scripts are known, other
//! properties are not. Scripts whose name has several words (`Old_Italic`, `SignWriting`) are refused, because
//! Go 1.25 and 1.26 refuse them: the lookup drops the `_` and the table of scripts keeps it.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// A property that `\p{..}` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Property {
    /// Every code point.
    Any,
    /// U+0000 to U+007F.
    Ascii,
    /// Every code point but the unassigned ones.
    Assigned,
    /// A general category, by its short name.
    Category(&'static str),
    /// A script, by its name.
    Script(&'static str),
}

/// Short names of the general categories, in the spelling of [`canonical`] (`Lc` is `LC` everywhere else).
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Cn", "Co", "Cs", "L", "Lc", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N",
    "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl",
    "Zp", "Zs",
];

/// Long names of the general categories, in the spelling of [`canonical`], and their short names.
const CATEGORY_ALIASES: &[(&str, &str)] = &[
    ("Casedletter", "Lc"),
    ("Closepunctuation", "Pe"),
    ("Cntrl", "Cc"),
    ("Combiningmark", "M"),
    ("Connectorpunctuation", "Pc"),
    ("Control", "Cc"),
    ("Currencysymbol", "Sc"),
    ("Dashpunctuation", "Pd"),
    ("Decimalnumber", "Nd"),
    ("Digit", "Nd"),
    ("Enclosingmark", "Me"),
    ("Finalpunctuation", "Pf"),
    ("Format", "Cf"),
    ("Initialpunctuation", "Pi"),
    ("Letter", "L"),
    ("Letternumber", "Nl"),
    ("Lineseparator", "Zl"),
    ("Lowercaseletter", "Ll"),
    ("Mark", "M"),
    ("Mathsymbol", "Sm"),
    ("Modifierletter", "Lm"),
    ("Modifiersymbol", "Sk"),
    ("Nonspacingmark", "Mn"),
    ("Number", "N"),
    ("Openpunctuation", "Ps"),
    ("Other", "C"),
    ("Otherletter", "Lo"),
    ("Othernumber", "No"),
    ("Otherpunctuation", "Po"),
    ("Othersymbol", "So"),
    ("Paragraphseparator", "Zp"),
    ("Privateuse", "Co"),
    ("Punct", "P"),
    ("Punctuation", "P"),
    ("Separator", "Z"),
    ("Spaceseparator", "Zs"),
    ("Spacingmark", "Mc"),
    ("Surrogate", "Cs"),
    ("Symbol", "S"),
    ("Titlecaseletter", "Lt"),
    ("Unassigned", "Cn"),
    ("Uppercaseletter", "Lu"),
];

/// The scripts of Unicode 15.0 with a name of one word.
const SCRIPTS: &[&str] = &[
    "Adlam",
    "Ahom",
    "Arabic",
    "Armenian",
    "Avestan",
    "Balinese",
    "Bamum",
    "Batak",
    "Bengali",
    "Bhaiksuki",
    "Bopomofo",
    "Brahmi",
    "Braille",
    "Buginese",
    "Buhid",
    "Carian",
    "Chakma",
    "Cham",
    "Cherokee",
    "Chorasmian",
    "Common",
    "Coptic",
    "Cuneiform",
    "Cypriot",
    "Cyrillic",
    "Deseret",
    "Devanagari",
    "Dogra",
    "Duployan",
    "Elbasan",
    "Elymaic",
    "Ethiopic",
    "Georgian",
    "Glagolitic",
    "Gothic",
    "Grantha",
    "Greek",
    "Gujarati",
    "Gurmukhi",
    "Han",
    "Hangul",
    "Hanunoo",
    "Hatran",
    "Hebrew",
    "Hiragana",
    "Inherited",
    "Javanese",
    "Kaithi",
    "Kannada",
    "Katakana",
    "Kawi",
    "Kharoshthi",
    "Khmer",
    "Khojki",
    "Khudawadi",
    "Lao",
    "Latin",
    "Lepcha",
    "Limbu",
    "Lisu",
    "Lycian",
    "Lydian",
    "Mahajani",
    "Makasar",
    "Malayalam",
    "Mandaic",
    "Manichaean",
    "Marchen",
    "Medefaidrin",
    "Miao",
    "Modi",
    "Mongolian",
    "Mro",
    "Multani",
    "Myanmar",
    "Nabataean",
    "Nandinagari",
    "Newa",
    "Nko",
    "Nushu",
    "Ogham",
    "Oriya",
    "Osage",
    "Osmanya",
    "Palmyrene",
    "Phoenician",
    "Rejang",
    "Runic",
    "Samaritan",
    "Saurashtra",
    "Sharada",
    "Shavian",
    "Siddham",
    "Sinhala",
    "Sogdian",
    "Soyombo",
    "Sundanese",
    "Syriac",
    "Tagalog",
    "Tagbanwa",
    "Takri",
    "Tamil",
    "Tangsa",
    "Tangut",
    "Telugu",
    "Thaana",
    "Thai",
    "Tibetan",
    "Tifinagh",
    "Tirhuta",
    "Toto",
    "Ugaritic",
    "Vai",
    "Vithkuqi",
    "Wancho",
    "Yezidi",
    "Yi",
];

/// U+1171E was a nonspacing mark (`Mn`) until Unicode 16 made it a spacing one (`Mc`).
const NONSPACING_BEFORE_16: char = '\u{1171E}';

/// Pairs that fold to each other since Unicode 15.1 only.
const UNFOLDED_BEFORE_16: [char; 6] = ['\u{390}', '\u{3B0}', '\u{1FD3}', '\u{1FE3}', '\u{FB05}', '\u{FB06}'];

/// Every code point that Unicode 15.0 has.
static UNICODE_15: LazyLock<ClassUnicode> = LazyLock::new(|| table("Age=15.0").unwrap_or_else(any));

/// Every code point that folds to another one in Unicode 15.0, and a few that do not.
pub(super) static FOLDING: LazyLock<ClassUnicode> = LazyLock::new(|| {
    let mut folding = table("Changes_When_Casemapped").unwrap_or_else(any);
    folding.intersect(&UNICODE_15);
    folding.difference(&ClassUnicode::new(UNFOLDED_BEFORE_16.map(single)));
    folding
});

/// The property called `name` (the text between the braces, without `^`), or `None` where Go knows none.
pub(super) fn property(name: &str) -> Option<Property> {
    let name = canonical(name);
    let listed = |list: &[&'static str]| list.iter().find(|known| **known == name).copied();
    match name.as_str() {
        "Any" => Some(Property::Any),
        "Ascii" => Some(Property::Ascii),
        "Assigned" => Some(Property::Assigned),
        _ => listed(CATEGORIES)
            .map(Property::Category)
            .or_else(|| listed(SCRIPTS).map(Property::Script))
            .or_else(|| {
                let alias = CATEGORY_ALIASES.iter().find(|(long, _)| *long == name);
                alias.map(|(_, short)| Property::Category(short))
            }),
    }
}

/// The spelling under which names are compared: an upper case letter, then lower case ones, no separators.
fn canonical(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')) {
        out.push(if out.is_empty() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
    }
    out
}

/// The code points with `property`; with `folded` also those that fold to one of them. Surrogates, which no text
/// holds, are left out. `None` if `regex-syntax` does not know the property.
pub(super) fn class(property: Property, folded: bool) -> Option<ClassUnicode> {
    let plain = match property {
        Property::Any => any(),
        Property::Ascii => ClassUnicode::new([ClassUnicodeRange::new('\0', '\x7F')]),
        Property::Assigned => {
            let mut assigned = category("Cn")?;
            negate(&mut assigned);
            assigned
        }
        Property::Category(name) => category(name)?,
        Property::Script(name) => {
            let mut script = table(&format!("Script={name}"))?;
            script.intersect(&UNICODE_15);
            script
        }
    };
    // Go folds by a table per property and has none for LC, so that U+0345, which folds to a letter, stays out.
    Some(if folded && property != Property::Category("Lc") { fold(&plain) } else { plain })
}

fn category(name: &str) -> Option<ClassUnicode> {
    if name == "Cs" {
        return Some(ClassUnicode::empty());
    }
    let mut class = table(&format!("General_Category={name}"))?;
    if matches!(name, "C" | "Cn") {
        let mut later = UNICODE_15.clone();
        negate(&mut later);
        class.union(&later);
    } else {
        class.intersect(&UNICODE_15);
    }
    let moved = ClassUnicode::new([single(NONSPACING_BEFORE_16)]);
    match name {
        "Mn" => class.union(&moved),
        "Mc" => class.difference(&moved),
        _ => {}
    }
    Some(class)
}

/// `class` and every code point that folds to one of its own.
pub(super) fn fold(class: &ClassUnicode) -> ClassUnicode {
    let mut out = class.clone();
    let mut cased = class.clone();
    cased.intersect(&FOLDING);
    // A class that holds every folding code point has nothing to gain; a failure means tables left out of the
    // build, which the tests would show.
    if cased.ranges() == FOLDING.ranges() || cased.try_case_fold_simple().is_err() {
        return out;
    }
    cased.intersect(&UNICODE_15);
    out.union(&cased);
    out
}

/// The code points that `c` matches under `(?i)`: itself and those that fold to it.
pub(super) fn fold_char(c: char) -> ClassUnicode {
    match c {
        'k' | 'K' => ClassUnicode::new(['k', 'K', '\u{212A}'].map(single)),
        's' | 'S' => ClassUnicode::new(['s', 'S', '\u{17F}'].map(single)),
        _ if c.is_ascii() => ClassUnicode::new([c.to_ascii_lowercase(), c.to_ascii_uppercase()].map(single)),
        _ => fold(&ClassUnicode::new([single(c)])),
    }
}

/// Turns `class` into its complement. Unlike [`ClassUnicode::negate`] it takes U+D7FF and U+E000 for neighbours;
/// that one makes a range of the nothing between them, which holds both.
pub(super) fn negate(class: &mut ClassUnicode) {
    let (below, above) = ('\u{D7FF}', '\u{E000}');
    let ranges = class.ranges();
    if ranges.iter().any(|range| range.end() == below) && ranges.iter().any(|range| range.start() == above) {
        class.union(&ClassUnicode::new([ClassUnicodeRange::new(below, above)]));
    }
    class.negate();
}

pub(super) fn any() -> ClassUnicode {
    ClassUnicode::new([ClassUnicodeRange::new('\0', char::MAX)])
}

fn single(c: char) -> ClassUnicodeRange {
    ClassUnicodeRange::new(c, c)
}

/// The class that `regex-syntax` has for `\p{query}`.
fn table(query: &str) -> Option<ClassUnicode> {
    match regex_syntax::parse(&format!("\\p{{{query}}}")).ok()?.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        // A property of a single code point is reduced to a literal.
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            Some(ClassUnicode::new(text.chars().map(single)))
        }
        _ => None,
    }
}
