//! Opening an access log, plain or compressed, and reading it piece by piece.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

use crate::error::{Place, Problem};

/// No line of a log may be longer.
const MAX_LINE: u64 = 1 << 20;

/// Windows up to 2 GiB, as `zstd --long=31` writes them.
const ZSTD_WINDOW_LOG: u32 = 31;

/// The raw bytes of the file `path`.
///
/// # Errors
///
/// Why the file cannot be opened.
pub fn file(path: &Path) -> Result<Box<dyn BufRead>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Err("it is a directory".into()),
        Ok(_) => Ok(Box::new(BufReader::new(file))),
        Err(e) => Err(e.to_string()),
    }
}

/// The raw bytes of standard input.
#[must_use]
pub fn stdin() -> Box<dyn BufRead> {
    Box::new(BufReader::new(io::stdin()))
}

/// The decompressed bytes of an access log, and how many of them were read.
pub struct Source {
    inner: Box<dyn BufRead>,
    offset: u64,
    lines: u64,
}

impl Source {
    /// Reads from `raw`, decompressing it if its first bytes are those of zstd or gzip.
    ///
    /// `name` is that of the file: one that ends in `.zst` or `.gz` must be compressed so.
    ///
    /// # Errors
    ///
    /// When the first bytes cannot be read, there are none, or they do not fit the name.
    pub fn new(mut raw: impl BufRead + 'static, name: &str) -> Result<Self, Problem> {
        let mut magic = Vec::new();
        let failed =
            |e: io::Error| Problem::at_byte(0, format!("expected a readable access log: {e}"));
        raw.by_ref()
            .take(4)
            .read_to_end(&mut magic)
            .map_err(failed)?;
        if magic.is_empty() {
            return Err(Problem::at_byte(
                0,
                "expected at least one access, found an empty file",
            ));
        }
        let compression = Compression::of(&magic);
        if let Some(expected) =
            Compression::by_name(name).filter(|&expected| expected != compression)
        {
            return Err(Problem::at_byte(
                0,
                format!("expected {expected:?} data, as the name says"),
            ));
        }
        let inner = decompress(compression, Cursor::new(magic).chain(raw));
        Ok(Self {
            inner: inner.map_err(failed)?,
            offset: 0,
            lines: 0,
        })
    }

    /// How many decompressed bytes were read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns up to `length` of the bytes that are left, which stay to be read; fewer only at the end.
    ///
    /// # Errors
    ///
    /// When the file is damaged within those bytes.
    pub fn peek(&mut self, length: u64) -> Result<Vec<u8>, Problem> {
        let mut sample = Vec::new();
        let result = self.inner.by_ref().take(length).read_to_end(&mut sample);
        result.map_err(|e| damaged(self.offset + sample.len() as u64, &e))?;
        let rest = std::mem::replace(&mut self.inner, Box::new(io::empty()));
        self.inner = Box::new(Cursor::new(sample.clone()).chain(rest));
        Ok(sample)
    }

    /// Reads the next record of `N` bytes, `None` at the end of the file.
    ///
    /// # Errors
    ///
    /// When the file is damaged or ends within the record.
    pub fn record<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Problem> {
        let mut record = [0; N];
        let mut filled = 0;
        while filled < N {
            match self.inner.read(&mut record[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(damaged(self.offset + filled as u64, &e)),
            }
        }
        if filled == 0 {
            return Ok(None);
        }
        if filled < N {
            let message = format!("expected a whole record of {N} bytes, found {filled}");
            return Err(Problem::at_byte(self.offset, message));
        }
        self.offset += N as u64;
        Ok(Some(record))
    }

    /// Reads the next line into `line`, without its line break; its place, `None` at the end of the file.
    ///
    /// # Errors
    ///
    /// When the file is damaged or the line is longer than any log's.
    pub fn line(&mut self, line: &mut Vec<u8>) -> Result<Option<Place>, Problem> {
        line.clear();
        let result = self.inner.by_ref().take(MAX_LINE).read_until(b'\n', line);
        let read = result.map_err(|e| damaged(self.offset + line.len() as u64, &e))?;
        if read == 0 {
            return Ok(None);
        }
        self.lines += 1;
        let place = Place::Line {
            number: self.lines,
            offset: self.offset,
        };
        self.offset += read as u64;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if read as u64 == MAX_LINE {
            return Err(Problem::new(
                place,
                "expected a line of text, found more than 1 MiB without a line break",
            ));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(place))
    }
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Plain,
    Zstd,
    Gzip,
}

impl Compression {
    /// Told by the ending of a file's name.
    fn by_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let ending = name.rsplit_once('.')?.1;
        [("zst", Self::Zstd), ("gz", Self::Gzip)]
            .into_iter()
            .find_map(|(e, c)| (e == ending).then_some(c))
    }

    /// Told by the first bytes: the magic numbers of zstd, or that of gzip with its only method.
    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x28, 0xB5, 0x2F, 0xFD] | [0x50..=0x5F, 0x2A, 0x4D, 0x18] => Self::Zstd,
            [0x1F, 0x8B, 0x08, ..] => Self::Gzip,
            _ => Self::Plain,
        }
    }
}

/// Decompresses `raw`, every frame or member of it.
fn decompress(
    compression: Compression,
    raw: impl BufRead + 'static,
) -> io::Result<Box<dyn BufRead>> {
    Ok(match compression {
        Compression::Plain => Box::new(raw),
        Compression::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(raw))),
        Compression::Zstd => {
            let mut decoder = Decoder::with_buffer(raw)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(BufReader::new(decoder))
        }
    })
}

/// The error of a file that cannot be read on at `offset`, because it is truncated or damaged.
fn damaged(offset: u64, error: &io::Error) -> Problem {
    Problem::at_byte(
        offset,
        format!("expected more data, but the file is cut off or damaged: {error}"),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use std::io::Write;

    /// `data` as one gzip member.
    pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).expect("writes to memory");
        encoder.finish().expect("writes to memory")
    }

    /// `data` as one zstd frame.
    pub(crate) fn zstandard(data: &[u8]) -> Vec<u8> {
        zstd::encode_all(data, 0).expect("writes to memory")
    }

    /// A source of `data` held in memory.
    pub(crate) fn source(data: &[u8]) -> Source {
        Source::new(Cursor::new(data.to_vec()), "").expect("data that is not empty")
    }

    fn read_all(source: &mut Source) -> Result<Vec<u8>, Problem> {
        let mut all = Vec::new();
        while let Some([byte]) = source.record()? {
            all.push(byte);
        }
        Ok(all)
    }

    #[test]
    fn decompresses_every_member_and_frame() {
        for pack in [gzip, zstandard, <[u8]>::to_vec] {
            let two = [pack(b"hello "), pack(b"world")].concat();
            assert_eq!(read_all(&mut source(&two)), Ok(b"hello world".to_vec()));
        }
    }

    #[test]
    fn a_cut_compressed_file_is_an_error_at_every_byte() {
        for pack in [gzip, zstandard] {
            let whole = pack(b"some text that is long enough to be cut anywhere");
            for length in 4..whole.len() {
                let error = read_all(&mut source(&whole[..length])).expect_err("it is cut");
                assert!(error.to_string().contains("cut off or damaged"), "{error}");
            }
        }
    }

    #[test]
    fn an_empty_file_is_an_error() {
        assert!(Source::new(io::empty(), "").is_err());
    }

    #[test]
    fn a_name_must_not_lie() {
        let named = |data: &[u8], name| Source::new(Cursor::new(data.to_vec()), name).map(|_| ());
        assert_eq!(named(&gzip(b"1"), "a.GZ"), Ok(()));
        let error = named(&gzip(b"1"), "a.zst").expect_err("it is gzip");
        assert_eq!(
            error.to_string(),
            "byte 0: expected Zstd data, as the name says"
        );
        assert!(named(b"1", "a.gz").is_err());
    }

    #[test]
    fn a_peeked_byte_is_read_again() {
        let mut source = source(b"abcdef");
        assert_eq!(source.peek(4), Ok(b"abcd".to_vec()));
        assert_eq!(source.peek(9), Ok(b"abcdef".to_vec()));
        assert_eq!(source.record(), Ok(Some(*b"abcde")));
        assert_eq!(source.offset(), 5);
        assert_eq!(
            source
                .record::<2>()
                .expect_err("one byte is left")
                .to_string(),
            "byte 5: expected a whole record of 2 bytes, found 1",
        );
    }

    #[test]
    fn lines_lose_their_breaks() {
        let mut source = source(b"one\r\n\ntwo");
        let mut line = Vec::new();
        for (number, offset, text) in [(1, 0, "one"), (2, 5, ""), (3, 6, "two")] {
            assert_eq!(
                source.line(&mut line),
                Ok(Some(Place::Line { number, offset }))
            );
            assert_eq!(line, text.as_bytes());
        }
        assert_eq!(source.line(&mut line), Ok(None));
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let long = vec![b'x'; usize::try_from(MAX_LINE).expect("a small number") + 1];
        assert!(source(&long).line(&mut Vec::new()).is_err());
    }
}
