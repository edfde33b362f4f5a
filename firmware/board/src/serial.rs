//! UART 0 of the board (Arm CMSDK APB UART), the line to the host. Waiting for an octet sleeps.

use core::arch::asm;
use core::ptr;

const BASE: usize = 0x4000_4000;
const DATA: *mut u32 = ptr::without_provenance_mut(BASE);
const STATE: *mut u32 = ptr::without_provenance_mut(BASE + 0x04);
const CONTROL: *mut u32 = ptr::without_provenance_mut(BASE + 0x08);
const INTERRUPT: *mut u32 = ptr::without_provenance_mut(BASE + 0x0c);
const BAUD_DIVISOR: *mut u32 = ptr::without_provenance_mut(BASE + 0x10);
/// NVIC: set-enable and clear-pending; the receiver is interrupt 0.
const NVIC_ENABLE: *mut u32 = ptr::without_provenance_mut(0xe000_e100);
const NVIC_CLEAR_PENDING: *mut u32 = ptr::without_provenance_mut(0xe000_e280);

const TRANSMIT_FULL: u32 = 1 << 0;
const RECEIVE_FULL: u32 = 1 << 1;
const ENABLE_TRANSMIT: u32 = 1 << 0;
const ENABLE_RECEIVE: u32 = 1 << 1;
const RECEIVE_INTERRUPT: u32 = 1 << 3;

fn load(register: *mut u32) -> u32 {
    // SAFETY: every caller passes one of the constants above, addresses of registers of this board.
    unsafe { register.read_volatile() }
}

fn store(register: *mut u32, value: u32) {
    // SAFETY: as in `load`; none of the registers makes the hardware access memory.
    unsafe { register.write_volatile(value) }
}

/// The serial port.
#[derive(Debug)]
pub struct Serial(());

impl Serial {
    /// Switches the port on. Interrupts stay masked in the core: one that is pending still ends a sleep.
    #[must_use]
    pub fn start() -> Self {
        // SAFETY: masking interrupts touches no memory.
        unsafe { asm!("cpsid i", options(nomem, nostack, preserves_flags)) };
        store(BAUD_DIVISOR, 16);
        store(CONTROL, ENABLE_TRANSMIT | ENABLE_RECEIVE | RECEIVE_INTERRUPT);
        store(NVIC_ENABLE, 1);
        Self(())
    }

    /// The next octet from the host.
    pub fn read(&mut self) -> u8 {
        while load(STATE) & RECEIVE_FULL == 0 {
            // SAFETY: waiting for an interrupt touches no memory.
            unsafe { asm!("wfi", options(nomem, nostack, preserves_flags)) };
        }
        let [octet, ..] = load(DATA).to_le_bytes();
        store(INTERRUPT, 0b10);
        store(NVIC_CLEAR_PENDING, 1);
        octet
    }

    /// Sends one octet.
    pub fn write(&mut self, octet: u8) {
        while load(STATE) & TRANSMIT_FULL != 0 {}
        store(DATA, octet.into());
    }

    /// Sends octets.
    pub fn write_all(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write(*octet);
        }
    }
}

impl core::fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.write_all(text.as_bytes());
        Ok(())
    }
}
