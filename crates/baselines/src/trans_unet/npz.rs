//! Arrays of an `.npz` file (a zip of `.npy` files) by their names.
//!
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use tch::{Kind, Tensor};
use zip::ZipArchive;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read; NumPy's are 128 bytes, more for shapes of many axes.
const LONGEST_HEADER: usize = 4096;

/// An open `.npz` file.
pub(super) struct Npz(ZipArchive<BufReader<File>>);

impl Npz {
    /// # Errors
    /// A file that can't be opened, or is no zip archive.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let archive = ZipArchive::new(BufReader::new(file));
        Ok(Self(archive.map_err(|error| anyhow!("it is no .npz file: {error}"))?))
    }

    /// Names of the arrays.
    ///
    /// # Errors
    /// A name that can't be read.
    pub(super) fn keys(&self) -> Result<Vec<String>> {
        let key = |name: &str| name.strip_suffix(".npy").unwrap_or(name).to_owned();
        self.0.file_names().map(|name| Ok(key(&name?))).collect()
    }

    /// An array of 32-bit floats.
    ///
    /// # Errors
    /// No such array, another type, a damaged one.
    pub(super) fn read(&mut self, key: &str) -> Result<Tensor> {
        let mut entry = self.0.by_name(&format!("{key}.npy"))?;
        let Header { shape, column_major } = read_header(&mut entry)?;
        let size = shape.iter().try_fold(4_u64, |size, &side| size.checked_mul(side));
        let size = size.filter(|&size| size < 1 << 40).with_context(|| format!("its shape {shape:?} is impossible"))?;
        // One byte more: so that what is too long is seen, and the archive's checksum is compared at the end.
        let mut bytes = Vec::new();
        entry.take(size + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 == size, "its values are not as many bytes as the {size} of shape {shape:?}");
        let mut shape: Vec<i64> = shape.into_iter().map(|side| side as i64).collect();
        if !column_major {
            return Ok(Tensor::f_from_data_size(&bytes, &shape, Kind::Float)?);
        }
        shape.reverse();
        let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
        Ok(Tensor::f_from_data_size(&bytes, &shape, Kind::Float)?.permute(axes))
    }
}

/// What stands before an array's values.
#[derive(Debug, PartialEq)]
struct Header {
    shape: Vec<u64>,
    /// Fortran's order; else C's.
    column_major: bool,
}

fn read_header(from: &mut impl Read) -> Result<Header> {
    let mut start = [0; 8];
    from.read_exact(&mut start).context("it is cut off")?;
    let [magic @ .., major, _] = &start;
    ensure!(magic == MAGIC, "it does not begin as a .npy file");
    let length = if *major == 1 {
        let mut bytes = [0; 2];
        from.read_exact(&mut bytes).context("it is cut off")?;
        u16::from_le_bytes(bytes) as usize
    } else {
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes).context("it is cut off")?;
        u32::from_le_bytes(bytes) as usize
    };
    ensure!(length <= LONGEST_HEADER, "its header has {length} bytes, expected {LONGEST_HEADER} at most");
    let mut text = vec![0; length];
    from.read_exact(&mut text).context("it is cut off")?;
    let text = String::from_utf8_lossy(&text);
    let (kind, header) =
        parse(&text).with_context(|| format!("its header is not understood: {:?}", text.trim_end()))?;
    ensure!(kind == "<f4", "it holds '{kind}', expected 32-bit floats, '<f4'");
    Ok(header)
}

/// The three values of the header's Python dictionary, in any order.
fn parse(text: &str) -> Option<(&str, Header)> {
    let value = |key: &str| Some(text.split_once(key)?.1.trim_start().strip_prefix(':')?.trim_start());
    let (kind, _) = value("'descr'")?.strip_prefix('\'')?.split_once('\'')?;
    let order = value("'fortran_order'")?;
    let column_major = order.starts_with("True");
    if !column_major && !order.starts_with("False") {
        return None;
    }
    let (sides, _) = value("'shape'")?.strip_prefix('(')?.split_once(')')?;
    let sides = sides.split(',').map(str::trim).filter(|side| !side.is_empty());
    Some((kind, Header { shape: sides.map(|side| side.parse().ok()).collect::<Option<_>>()?, column_major }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `.npy` file of version 1.
    fn file(dictionary: &str) -> Vec<u8> {
        let length = (dictionary.len() as u16).to_le_bytes();
        [MAGIC.as_slice(), &[1, 0], &length, dictionary.as_bytes()].concat()
    }

    #[test]
    fn a_header_is_read_in_any_order_of_its_keys_and_in_both_orders_of_the_values() {
        let shape = vec![1, 2, 3];
        let c = file("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }   \n");
        assert_eq!(read_header(&mut c.as_slice()).unwrap(), Header { shape: shape.clone(), column_major: false });
        let fortran = file("{'shape': (1,2,3), 'fortran_order':True, 'descr': '<f4'}\n");
        assert_eq!(read_header(&mut fortran.as_slice()).unwrap(), Header { shape, column_major: true });
        let scalar = file("{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n");
        assert!(read_header(&mut scalar.as_slice()).unwrap().shape.is_empty());
    }

    #[test]
    fn what_is_no_header_of_32_bit_floats_is_refused_with_what_was_found() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";
        let refused = |bytes: &[u8]| format!("{:#}", read_header(&mut &*bytes).unwrap_err());
        assert!(refused(&file(&good.replace("<f4", "<f8"))).contains("holds '<f8', expected 32-bit floats"));
        assert!(refused(&file(&good.replace("(1, 2)", "(1, -2)"))).contains("not understood"));
        assert!(refused(&file(&good.replace("False", "Maybe"))).contains("not understood"));
        assert!(refused(&file("")).contains("not understood"));
        assert!(refused(&file(good)[..20]).contains("cut off"));
        assert!(refused(b"PK\x03\x04 and so on").contains("does not begin as a .npy file"));
        assert!(refused(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("4294967295 bytes"));
    }
}
