"""Networks: generators and critics, and how settings become one."""
