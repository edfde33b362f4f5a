//! The field of 2^8 elements, modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197 section 4). No table and no branch depends on
//! a value, because the values are octets of keys.

/// The product.
pub(crate) const fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    let mut bit = 0;
    while bit < 8 {
        product ^= a & mask(b & 1);
        a = (a << 1) ^ (0x1b & mask(a >> 7));
        b >>= 1;
        bit += 1;
    }
    product
}

/// The inverse; zero for zero. It is the 254th power.
pub(crate) const fn invert(a: u8) -> u8 {
    // 254 = 2 + 4 + 8 + 16 + 32 + 64 + 128.
    let mut power = multiply(a, a);
    let mut inverse = power;
    let mut step = 0;
    while step < 6 {
        power = multiply(power, power);
        inverse = multiply(inverse, power);
        step += 1;
    }
    inverse
}

/// All ones for 1, all zeroes for 0.
const fn mask(bit: u8) -> u8 {
    0_u8.wrapping_sub(bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication as polynomials on paper: all bits first, then the remainder.
    fn on_paper(a: u8, b: u8) -> u8 {
        let mut wide = (0..8).filter(|bit| b >> bit & 1 == 1).fold(0_u16, |sum, bit| sum ^ (u16::from(a) << bit));
        for bit in (8..16).rev() {
            if wide >> bit & 1 == 1 {
                wide ^= 0x11b << (bit - 8);
            }
        }
        u8::try_from(wide).expect("reduced")
    }

    #[test]
    fn every_product_is_the_one_on_paper() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), on_paper(a, b), "{a} {b}");
            }
        }
        // FIPS 197 section 4.2.
        assert_eq!(multiply(0x57, 0x83), 0xc1);
    }

    #[test]
    fn every_element_but_zero_times_its_inverse_is_one() {
        assert_eq!(invert(0), 0);
        for a in 1..=255 {
            assert_eq!(multiply(a, invert(a)), 1, "{a}");
        }
    }
}
