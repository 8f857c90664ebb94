//! Compresses the files that the web pages load, their texts and the description of the interface: so the binary holds them,
//! and sends them. It makes the checksum that the files' addresses carry, too. Our comments and indentation are for whoever
//! reads the sources: no phone loads them.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where the pages are: a folder for each, and one for what they share.
const FOLDER: &str = "src/pages";
/// The folders whose files are loaded, but for their templates.
const LOADED: [&str; 4] = ["gate", "organizer", "shared", "ticket"];
/// The texts of the pages, a file for each language.
const TEXTS: &str = "src/pages/text";
/// The language that is spoken to whoever asks for none of ours.
const FIRST: &str = "en";
const INTERFACE: &str = "src/openapi.json";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let root = Path::new(FOLDER).canonicalize()?;
    let mut checksum = Sha256::new();
    let mut table = String::new();
    let loaded = LOADED.iter().map(|folder| files(&root.join(folder))).collect::<io::Result<Vec<_>>>()?.concat();
    let assets = loaded.iter().filter(|file| file.extension().is_none_or(|ending| ending != "html"));
    for (place, file) in assets.enumerate() {
        let name = file.strip_prefix(&root).expect("it is in there").to_str().expect("our own name");
        let ours = !name.contains("vendor/") && (name.ends_with(".js") || name.ends_with(".css"));
        let bytes = if ours { lean(&fs::read_to_string(file)?).into() } else { fs::read(file)? };
        checksum.update(name);
        checksum.update([0]);
        checksum.update(bytes.len().to_le_bytes());
        checksum.update(&bytes);
        let gzip = out.join(format!("{place}.gz"));
        compress(&bytes, &gzip)?;
        let brotli = out.join(format!("{place}.br"));
        compress_more(&bytes, &brotli)?;
        writeln!(
            table,
            "    Asset {{ name: {name:?}, gzip: include_bytes!({gzip:?}), brotli: include_bytes!({brotli:?}) }},"
        )
        .expect("a string grows");
    }
    println!("cargo::rerun-if-changed={INTERFACE}");
    compress(&fs::read(INTERFACE)?, &out.join("openapi.json.gz"))?;
    let (count, languages) = languages(&out)?;
    let checksum = checksum.finalize();
    let version: String = checksum[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("/assets/{version}");
    let code = format!(
        "/// Where the files of this release are.\npub const ASSETS_PATH: &str = {path:?};\npub static ASSETS: &[Asset] = &[\n{table}];\n\
         /// The first is spoken to whoever asks for none of them.\npub static LANGUAGES: [Language; {count}] = [\n{languages}];\n"
    );
    fs::write(out.join("assets.rs"), code)
}

/// How many languages there are, and the members of `LANGUAGES`, whose texts are compressed.
fn languages(out: &Path) -> io::Result<(usize, String)> {
    let mut files = files(Path::new(TEXTS))?;
    files.sort_by_key(|file| (file.file_stem().is_none_or(|tag| tag != FIRST), file.clone()));
    let mut table = String::new();
    for file in &files {
        let tag = file.file_stem().and_then(|tag| tag.to_str()).expect("our own name");
        let compressed = out.join(format!("{tag}.json.gz"));
        compress(&fs::read(file)?, &compressed)?;
        writeln!(table, "    Language::new({tag:?}, || texts(include_bytes!({compressed:?}))),")
            .expect("a string grows");
    }
    Ok((files.len(), table))
}

fn compress(bytes: &[u8], to: &Path) -> io::Result<()> {
    zopfli::compress(zopfli::Options::default(), zopfli::Format::Gzip, bytes, File::create(to)?)
}

/// By RFC 7932, about an eighth less. Browsers take it where nothing between them and the service can spoil it, by TLS.
fn compress_more(bytes: &[u8], to: &Path) -> io::Result<()> {
    let settings = brotli::enc::BrotliEncoderParams { size_hint: bytes.len(), ..Default::default() };
    brotli::BrotliCompress(&mut &bytes[..], &mut File::create(to)?, &settings).map(drop)
}

/// A script or a style without the comments that have lines of their own, and without indentation. Those lines stay, empty,
/// so that an error tells the line of the source. No text of ours spans lines.
fn lean(source: &str) -> String {
    let mut inside = false;
    let lines = source.lines().map(|line| {
        let words = line.trim();
        let is_comment = inside || words.starts_with("//") || words.starts_with("/*");
        inside = is_comment && !words.starts_with("//") && !words.ends_with("*/");
        if is_comment { "\n".to_owned() } else { format!("{words}\n") }
    });
    lines.collect()
}

/// All files below a folder, in an order that is the same on every machine.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}
