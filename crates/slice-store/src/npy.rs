//! The `.npy` header, versions 1 and 2, written as NumPy writes it and read strictly.
//!
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{self, Write};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Longest header that is read; ours are 128 bytes.
const LONGEST_HEADER: usize = 4096;

/// A pixel type that the store keeps.
pub(crate) trait Element: Copy {
    /// NumPy's name of the type.
    const DESCR: &'static str;

    /// Appends the little-endian bytes of the elements.
    fn write(elements: &[Self], to: &mut impl Write) -> io::Result<()>;
}

impl Element for i16 {
    const DESCR: &'static str = "<i2";

    fn write(elements: &[Self], to: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(1 << 16);
        for block in elements.chunks(1 << 15) {
            bytes.clear();
            bytes.extend(block.iter().flat_map(|v| v.to_le_bytes()));
            to.write_all(&bytes)?;
        }
        Ok(())
    }
}

impl Element for u8 {
    const DESCR: &'static str = "|u1";

    fn write(elements: &[Self], to: &mut impl Write) -> io::Result<()> {
        to.write_all(elements)
    }
}

/// What a header says of a three-dimensional array in C order.
#[derive(Debug, PartialEq)]
pub(crate) struct Header {
    /// `[slices, rows, columns]`.
    pub shape: [usize; 3],
    /// Where the elements begin, in bytes.
    pub offset: usize,
}

/// Writes a version 1 file of `shape`; the caller has checked that it has as many elements.
pub(crate) fn write<T: Element>(elements: &[T], shape: [usize; 3], to: &mut impl Write) -> io::Result<()> {
    let [slices, rows, columns] = shape;
    let mut dictionary =
        format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({slices}, {rows}, {columns}), }}", T::DESCR);
    // The elements begin at a multiple of 64 bytes; a line feed ends the header.
    let length = (10 + dictionary.len() + 1).next_multiple_of(64) - 10;
    while dictionary.len() < length - 1 {
        dictionary.push(' ');
    }
    dictionary.push('\n');
    to.write_all(MAGIC)?;
    to.write_all(&[1, 0])?;
    to.write_all(&(length as u16).to_le_bytes())?;
    to.write_all(dictionary.as_bytes())?;
    T::write(elements, to)
}

/// Reads the header of a file whose elements must be `T`, whose order C and whose length just as long as it says.
pub(crate) fn read<T: Element>(bytes: &[u8]) -> Result<Header, String> {
    let (version, rest) = match bytes {
        [b'\x93', b'N', b'U', b'M', b'P', b'Y', major, 0, rest @ ..] => (*major, rest),
        _ => return Err("it does not begin as a .npy file".to_owned()),
    };
    let (length_bytes, length) = match (version, rest) {
        (1, [a, b, ..]) => (2, u16::from_le_bytes([*a, *b]) as usize),
        (2, [a, b, c, d, ..]) => (4, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        (1 | 2, _) => return Err("its header is cut off".to_owned()),
        _ => return Err(format!("it has .npy version {version}, expected 1 or 2")),
    };
    if length > LONGEST_HEADER {
        return Err(format!("its header says it has {length} bytes, expected {LONGEST_HEADER} at most"));
    }
    let text = rest.get(length_bytes..length_bytes + length).ok_or("its header is cut off")?;
    let text = std::str::from_utf8(text).map_err(|_| "its header is not text")?;
    let (descr, fortran_order, shape) =
        parse_dictionary(text).ok_or_else(|| format!("its header is not understood: {:?}", text.trim_end()))?;
    if descr != T::DESCR || fortran_order {
        let order = if fortran_order { "Fortran" } else { "C" };
        return Err(format!("it holds '{descr}' in {order} order, expected '{}' in C order", T::DESCR));
    }
    let offset = MAGIC.len() + 2 + length_bytes + length;
    let expected = shape
        .iter()
        .try_fold(size_of::<T>(), |size, &side| size.checked_mul(side))
        .and_then(|size| size.checked_add(offset))
        .ok_or_else(|| format!("its shape {shape:?} is impossible"))?;
    if bytes.len() != expected {
        return Err(format!("it has {} bytes, expected {expected} for shape {shape:?}", bytes.len()));
    }
    if !offset.is_multiple_of(align_of::<T>()) {
        return Err(format!("its elements begin at byte {offset}, which is not aligned"));
    }
    Ok(Header { shape, offset })
}

/// The three keys of the header's Python dictionary, in any order, each once.
fn parse_dictionary(text: &str) -> Option<(&str, bool, [usize; 3])> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = quoted(rest)?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        let after = match key {
            "descr" if descr.is_none() => {
                let (text, after) = quoted(value)?;
                descr = Some(text);
                after
            }
            "fortran_order" if fortran_order.is_none() => {
                let (word, flag) = if value.starts_with("False") { ("False", false) } else { ("True", true) };
                fortran_order = Some(flag);
                value.strip_prefix(word)?
            }
            "shape" if shape.is_none() => {
                let (inside, after) = value.strip_prefix('(')?.split_once(')')?;
                let inside = inside.trim().strip_suffix(',').unwrap_or(inside.trim());
                let sides: Vec<usize> = inside.split(',').map(|s| s.trim().parse().ok()).collect::<Option<_>>()?;
                shape = Some(sides.try_into().ok()?);
                after
            }
            _ => return None,
        };
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if after.is_empty() => after,
            None => return None,
        };
    }
    Some((descr?, fortran_order?, shape?))
}

/// A Python string in either kind of quotes, without escapes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| "'\"".contains(*c))?;
    text[1..].split_once(quote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(version: u8, dictionary: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((dictionary.len() as u16).to_le_bytes()),
            _ => bytes.extend((dictionary.len() as u32).to_le_bytes()),
        }
        bytes.extend(dictionary.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn the_header_is_numpys_own() {
        // The first 128 bytes of what `numpy.save` (2.3) writes for `np.zeros((2, 3, 4), "<i2")`.
        let mut numpy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        numpy.extend(b"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3, 4), }");
        numpy.resize(127, b' ');
        numpy.push(b'\n');
        let mut ours = Vec::new();
        write(&[0_i16; 24], [2, 3, 4], &mut ours).unwrap();
        assert_eq!(ours[..128], numpy);
        assert_eq!(read::<i16>(&ours), Ok(Header { shape: [2, 3, 4], offset: 128 }));
    }

    #[test]
    fn version_2_other_key_order_and_quotes_are_read() {
        let dictionary = "{\"shape\": (1,2,3), 'fortran_order':False, 'descr': '|u1'}   \n";
        assert_eq!(read::<u8>(&file(2, dictionary, &[0; 6])).unwrap().shape, [1, 2, 3]);
    }

    #[test]
    fn what_is_not_meant_is_refused() {
        let good = "{'descr': '<i2', 'fortran_order': False, 'shape': (1, 1, 2), }\n ";
        assert!(read::<i16>(&file(1, good, &[0; 4])).is_ok());
        let refused = |bytes: &[u8]| read::<i16>(bytes).unwrap_err();
        assert!(refused(&file(1, good, &[0; 3])).contains("expected 78 for shape [1, 1, 2]"));
        assert!(refused(&file(3, good, &[0; 4])).contains("version 3"));
        assert!(refused(&file(1, &good.replace("<i2", ">i2"), &[0; 4])).contains("'>i2' in C order"));
        assert!(refused(&file(1, &good.replace("False", "True"), &[0; 4])).contains("Fortran"));
        assert!(refused(&file(1, &good.replace("(1, 1, 2)", "(2,)"), &[0; 4])).contains("not understood"));
        assert!(refused(&file(1, &good.replace("1, 1, 2", "1, -1, 2"), &[0; 4])).contains("not understood"));
        assert!(
            refused(&file(1, &good.replace("1, 1,", &format!("{0}, {0},", usize::MAX)), &[])).contains("impossible")
        );
        assert!(refused(&file(1, good.trim_end_matches(' '), &[0; 4])).contains("aligned"));
        assert!(refused(b"\x93NUMPY\x01\x00\xff").contains("cut off"));
        assert!(refused(b"").contains("does not begin"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(tail in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(tail);
            let _ = read::<i16>(&bytes);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[{}'\"a-z_:,() 0-9é]{0,60}") {
            let _ = parse_dictionary(&text);
        }
    }
}
