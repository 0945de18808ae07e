"""Speed, memory and quality of flowbench beside other libraries; never imported by flowbench."""
