#include "board.h"

#include <stdlib.h>
#include <string.h>

/* Of the linker script. */
extern uint32_t board_stack_top, board_data_load, board_data, board_data_end, board_bss, board_bss_end;

int main(void);
void board_reset(void);

/* UART 0 of the board (Arm CMSDK APB UART) and the core's interrupt controller. */
#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define UART_DATA REGISTER(0x40004000u)
#define UART_STATE REGISTER(0x40004004u)
#define UART_CONTROL REGISTER(0x40004008u)
#define UART_INTERRUPT REGISTER(0x4000400cu)
#define UART_BAUD_DIVISOR REGISTER(0x40004010u)
#define NVIC_ENABLE REGISTER(0xe000e100u)
#define NVIC_CLEAR_PENDING REGISTER(0xe000e280u)
#define COPROCESSOR_ACCESS REGISTER(0xe000ed88u)

static int semihosting(int operation, const void *argument) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

_Noreturn void board_exit(int status) {
  const uint32_t reason[2] = {0x20026u /* ADP_Stopped_ApplicationExit */, (uint32_t)status};
  semihosting(0x20 /* SYS_EXIT_EXTENDED */, reason);
  for (;;) {
  }
}

/* The SDK calls this should it ever panic; the C library does for a failed assertion. */
_Noreturn void abort(void) {
  semihosting(0x04 /* SYS_WRITE0 */, "abort\n");
  board_exit(101);
}

static void unexpected(void) { abort(); }

__attribute__((section(".vectors"), used)) const uintptr_t board_vectors[16] = {
    (uintptr_t)&board_stack_top, (uintptr_t)board_reset, (uintptr_t)unexpected, (uintptr_t)unexpected,
    (uintptr_t)unexpected,       (uintptr_t)unexpected,  (uintptr_t)unexpected, 0, 0, 0, 0,
    (uintptr_t)unexpected,       (uintptr_t)unexpected,  0, (uintptr_t)unexpected, (uintptr_t)unexpected,
};

void board_reset(void) {
  COPROCESSOR_ACCESS |= 0xfu << 20; /* the FPU, before anything uses it */
  __asm__ volatile("dsb\n isb" ::: "memory");
  memcpy(&board_data, &board_data_load, (size_t)((uintptr_t)&board_data_end - (uintptr_t)&board_data));
  memset(&board_bss, 0, (size_t)((uintptr_t)&board_bss_end - (uintptr_t)&board_bss));
  board_exit(main());
}

void line_open(void) {
  /* Interrupts stay masked in the core: one that is pending still ends a sleep. */
  __asm__ volatile("cpsid i");
  UART_BAUD_DIVISOR = 16;
  UART_CONTROL = 1u << 0 | 1u << 1 | 1u << 3; /* transmit, receive, receive interrupt */
  NVIC_ENABLE = 1;
}

static uint8_t read_octet(void) {
  uint8_t octet;
  while ((UART_STATE & 1u << 1) == 0) __asm__ volatile("wfi");
  octet = (uint8_t)UART_DATA;
  UART_INTERRUPT = 1u << 1;
  NVIC_CLEAR_PENDING = 1;
  return octet;
}

static void write_octet(uint8_t octet) {
  while ((UART_STATE & 1u << 0) != 0) {
  }
  UART_DATA = octet;
}

void line_begin(size_t length) {
  write_octet((uint8_t)length);
  write_octet((uint8_t)(length >> 8));
}

void line_write(const void *octets, size_t length) {
  const uint8_t *next = octets;
  while (length-- > 0) write_octet(*next++);
}

size_t line_receive(uint8_t *buffer, size_t capacity) {
  size_t length = read_octet(), i;
  length |= (size_t)read_octet() << 8;
  for (i = 0; i < length; i++) {
    uint8_t octet = read_octet();
    if (length <= capacity) buffer[i] = octet;
  }
  return length <= capacity ? length : LINE_TOO_LONG;
}
